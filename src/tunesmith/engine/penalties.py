"""What a training keeps small: its distance from the base's answers and the weights' start, and what its method says.

Each of them is a `Penalty` of the loop: it adds its gradient to the weights' and tells its value. They depend on the
weights and the number of the step alone, so a run that resumes meets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine.checkpoints import trained
from tunesmith.engine.forward import forward, target_logits
from tunesmith.engine.loop import Penalty
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.scoring import distributions


def of_method(method: ModuleType) -> dict[str, Penalty]:
    """What the method itself keeps small, as its `penalty(model)` says; most have none."""
    if not hasattr(method, "penalty"):
        return {}

    def pull(prepared: Prepared, step: int, scale: float) -> float:
        value: Tensor = method.penalty(prepared.model)
        (scale * value).backward()  # type: ignore[no-untyped-call]  # torch
        return float(value.detach())

    return {"penalty": pull}


class Leash:
    """KL(base ‖ tuned), nats a token, on a few rows a step: `weight` times it is added to the loss.

    Made before anything is attached, of a model that is still the base: `rows` are its own answers, and its
    distributions over them, `[tokens, vocabulary]`, stay in memory in half precision. Dropout is off on both sides.
    """

    def __init__(self, prepared: Prepared, rows: Sequence[Encoded], weight: float, rows_a_step: int) -> None:
        self.rows, self.weight, self.rows_a_step = rows, weight, min(rows_a_step, len(rows))
        self.prefix: Sequence[int] = ()
        lengths = [sum(weight > 0 for weight in row.weights) for row in rows]
        self.base: tuple[Tensor, ...] = torch.split(distributions(prepared, rows), lengths)

    def __call__(self, prepared: Prepared, step: int, scale: float) -> float:
        """Add the gradient on the rows of this step; `prefix` stands before each. Returns the mean KL of a token."""
        places = [((step - 1) * self.rows_a_step + i) % len(self.rows) for i in range(self.rows_a_step)]
        rows = [self.rows[place] for place in places]
        batch = pack(rows, prefix=self.prefix, share=prepared.shares).to(prepared.device)
        prepared.model.eval()
        now = target_logits(prepared, batch).log_softmax(-1)
        base = torch.cat([self.base[place] for place in places]).to(prepared.device).float().log_softmax(-1)
        kl = (base.exp() * (base - now)).sum(-1).mean()
        if kl.requires_grad:
            (self.weight * scale * kl).backward()  # type: ignore[no-untyped-call]  # torch
        return float(kl.detach())


class Pull:
    """Half the squared distance of what trains from where it is now, ``½ Σ F (θ − θ₀)²``, `weight` times.

    With `importance` None, F is 1: L2-SP (Li et al. 2018, arXiv 1802.01483, eq. 2). With a diagonal Fisher estimate, a
    tensor a parameter, it is elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3). Where a
    fresh adapter is trained its start is the base, so the pull shrinks the adapter. Takes 4 bytes a trained number.
    """

    def __init__(self, prepared: Prepared, weight: float, importance: Sequence[Tensor] | None = None) -> None:
        self.weight, self.importance = weight, importance
        self.parameters = [parameter for _, parameter in trained(prepared.model)]
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def __call__(self, prepared: Prepared, step: int, scale: float) -> float:
        """Add the gradient ``F (θ − θ₀)`` where the step has one; returns the value before the weight."""
        total = 0.0
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            away = parameter - self.start[place]
            pull = away if self.importance is None else away * self.importance[place]
            total += 0.5 * float((pull * away).sum())
            parameter.grad.add_(pull, alpha=self.weight * scale)
        return total


def fisher(prepared: Prepared, rows: Sequence[Encoded], prefix: Sequence[int] = ()) -> list[Tensor]:
    """How much the likelihood of `rows` hangs on each trained number: the mean over rows of its squared gradient.

    The diagonal of the Fisher information where the rows are the model's own answers (arXiv 1612.00796, sec. 2.1), a
    tensor a trained parameter, divided by its mean over them all, so that 1 is the importance of the usual number.
    """
    parameters = [parameter for _, parameter in trained(prepared.model)]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    prepared.model.eval()
    for row in rows:
        likelihood = forward(prepared, pack([row], prefix=prefix, share=prepared.shares)).logprobs.sum()
        for total, gradient in zip(sums, torch.autograd.grad(likelihood, parameters, allow_unused=True), strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient)
    mean = sum(float(total.sum()) for total in sums) / sum(total.numel() for total in sums)
    return [total.div_(mean) for total in sums] if mean > 0 else sums

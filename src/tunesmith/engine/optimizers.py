"""Optimizers by name, what they remember, and the shape of the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.config import LrSchedulerKwargs
from tunesmith.core.errors import Mistake

SLOTS: dict[str, tuple[float, float]] = {
    "adamw": (2, 2),
    "adam": (2, 2),
    "sgd": (1, 1),
    "adafactor": (0, 1),
    "adamw8bit": (0.5, 2),
    "lion": (1, 1),
    "muon": (1, 2),
}
"""float32 numbers that an optimizer remembers for each number of a matrix, and of a vector."""


def make(
    name: str,
    parameters: Iterable[Tensor | Mapping[str, Any]],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    embeddings: Collection[Tensor] = (),
) -> torch.optim.Optimizer:
    """An optimizer over the parameters that train; every one takes its groups' `lr` as the size of a step.

    ``adamw``: Loshchilov & Hutter 2019 (arXiv 1711.05101); ``adam``: Kingma & Ba 2015 (arXiv 1412.6980), weight decay
    as L2; ``sgd``: with momentum; ``adafactor``: Shazeer & Stern 2018 (arXiv 1804.04235), without its own step sizes;
    ``adamw8bit``: AdamW with blockwise 8-bit moments, Dettmers et al. 2022 (arXiv 2110.02861); ``lion``: see `Lion`;
    ``muon``: see `Muon`, with AdamW for vectors and `embeddings`. Groups from a method's `param_groups` may carry
    `scale`, a factor on the learning rate. Weight decay is left off vectors (biases, norms).

    Raises Mistake when the optimizer's library is not installed.
    """
    groups: list[dict[str, Any]] = [
        dict(group) if isinstance(group, Mapping) else {"params": [group]} for group in parameters
    ]
    apart = {id(embedding) for embedding in embeddings}
    split: dict[tuple[float, bool, bool], list[Tensor]] = {}
    for group in groups:
        for parameter in group["params"]:
            kind = float(group.get("scale", 1.0)), parameter.dim() > 1, name == "muon" and id(parameter) in apart
            split.setdefault(kind, []).append(parameter)
    prepared = [
        {
            "params": tensors,
            "scale": scale,
            "lr": learning_rate * scale,
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (scale, matrix, _), tensors in split.items()
    ]
    made: torch.optim.Optimizer
    if name == "muon":
        hidden = [matrix and not embedding for _, matrix, embedding in split]
        return Muon(
            [group for group, inner in zip(prepared, hidden, strict=True) if inner],
            [group for group, inner in zip(prepared, hidden, strict=True) if not inner],
        )
    made = _MAKERS[name](prepared, momentum)
    return made


def _adafactor(groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(  # type: ignore[no-untyped-call]  # of transformers
        groups, lr=0.0, scale_parameter=False, relative_step=False
    )
    return made


def _adamw8bit(groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    try:
        make_one: Any = import_module("bitsandbytes.optim").AdamW8bit
    except ImportError:
        needs = "needs bitsandbytes, which is not installed"
        raise Mistake(
            f"optimizer: got adamw8bit, which {needs}; expected the library or another optimizer; "
            "type pip install bitsandbytes, or --optimizer adafactor"
        ) from None
    made: torch.optim.Optimizer = make_one(groups, betas=_BETAS)
    return made


_BETAS = (0.9, 0.999)
_MAKERS: dict[str, Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]] = {
    "adamw": lambda groups, _: torch.optim.AdamW(groups, betas=_BETAS, eps=1e-8, fused=True),
    "adam": lambda groups, _: torch.optim.Adam(groups, betas=_BETAS, eps=1e-8, fused=True),
    "sgd": lambda groups, momentum: torch.optim.SGD(groups, momentum=momentum),
    "adafactor": _adafactor,
    "adamw8bit": _adamw8bit,
    "lion": lambda groups, _: Lion(groups),
}


class Lion(torch.optim.Optimizer):
    """Lion: the sign of a momentum, one slot a weight (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

    ``θ ← θ − η (sign(β₁ m + (1 − β₁) g) + λ θ)``, then ``m ← β₂ m + (1 − β₂) g``. Every weight moves by the whole rate,
    so the paper takes a third to a tenth of AdamW's.
    """

    def __init__(self, groups: Any, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(groups, {"lr": 1e-4, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            towards, forgets = (1 - beta for beta in group["betas"])
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                slots = self.state[weight]
                momentum = slots.setdefault("momentum", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(momentum.lerp(weight.grad, towards).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, forgets)


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of hidden layers and AdamW for the rest, as one optimizer with one state.

    A matrix moves along its momentum made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon), scaled to
    the length of AdamW's steps, so that AdamW's learning rates suit it (Liu et al. 2025, arXiv 2502.16982, eq. 4).
    """

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(torch.optim.AdamW(others, betas=_BETAS, fused=True))
        super().__init__([*matrices, *others], {})
        self._share()

    def _share(self) -> None:
        """The parts work on the very groups and slots of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: Any) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        for part in self.parts:
            part.step()


def slot_numbers(name: str, parameters: Sequence[Tensor], embeddings: Collection[Tensor] = ()) -> float:
    """float32 numbers that the optimizer will remember for these parameters."""
    of_matrix, of_vector = SLOTS[name]
    apart = {id(embedding) for embedding in embeddings} if name == "muon" else set()
    return sum(p.numel() * (of_matrix if p.dim() > 1 and id(p) not in apart else of_vector) for p in parameters)


def slots(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What an optimizer remembers, the live tensors and the plain numbers, by ``place.name`` (``place.group.name``).

    Tensors that several places share (the code books of adamw8bit) are copies: files hold each on its own.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in _leaves(optimizer.state_dict()["state"]):
        if isinstance(value, Tensor):
            tensors[name] = value.clone() if value.data_ptr() in seen else value.contiguous()
            seen.add(value.data_ptr())
        else:
            plain[name] = value
    return tensors, plain


def _leaves(tree: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Make an optimizer remember what `slots` gave; the tensors become its own."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *plain.items()]:
        place, *groups, name = key.split(".")
        holder = state.setdefault(int(place), {})
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a step stands: `through` (0 to 1) what follows the warm-up, `since` steps after its `warmup` steps."""

    through: float
    since: int
    warmup: int


def _half_cosine(through: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * through))


def _slanted(step: int, steps: int) -> float:
    cut = steps // 10
    share = step / cut if step < cut else 1 - (step - cut) / (steps - cut)
    return (1 + share * 31) / 32


def _stable_then_decay(at: Moment, told: LrSchedulerKwargs) -> float:
    decaying = max(0.0, (at.through - 1.0 + told.decay_ratio) / told.decay_ratio)
    return _above(told.min_lr_rate or 0.0, _half_cosine(decaying))


def _above(lowest: float, share: float) -> float:
    return lowest + (1.0 - lowest) * share


SHAPES: dict[str, Callable[[Moment, LrSchedulerKwargs], float]] = {
    "constant": lambda at, told: 1.0,
    "constant_with_warmup": lambda at, told: 1.0,
    "linear": lambda at, told: 1.0 - at.through,
    "cosine": lambda at, told: _half_cosine(at.through),
    "cosine_with_restarts": lambda at, told: _half_cosine(told.num_cycles * at.through % 1.0),
    "cosine_with_min_lr": lambda at, told: _above(
        0.1 if told.min_lr_rate is None else told.min_lr_rate, _half_cosine(at.through)
    ),
    "polynomial": lambda at, told: _above(told.min_lr_rate or 0.0, (1.0 - at.through) ** told.power),
    "inverse_sqrt": lambda at, told: (1.0 + at.since / (at.warmup or 10_000)) ** -0.5,
    "warmup_stable_decay": _stable_then_decay,
}
"""Factors after the warm-up, by the names and with the defaults of transformers."""


USUAL = LrSchedulerKwargs()
"""Nothing asked for."""


def factor(step: int, steps: int, *, warmup_ratio: float, shape: str, told: LrSchedulerKwargs = USUAL) -> float:
    """What the peak learning rate is multiplied with at `step` (0-based) of `steps`.

    Rises linearly over the first `warmup_ratio` of the steps, then follows the shape of that name.
    ``slanted_triangular`` has a rise of its own: in a line from a 32nd over the first tenth of the steps, whatever
    `warmup_ratio`, and back again (arXiv 1801.06146, eq. 3).
    """
    if shape == "slanted_triangular":
        return _slanted(step, steps)
    warmup = round(steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    since = step - warmup
    return SHAPES[shape](Moment(since / max(1, steps - warmup), since, warmup), told)

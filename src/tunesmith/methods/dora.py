"""Low-rank updates that turn each output's weights, and a magnitude that stretches them: nearer to full tuning.

DoRA (arXiv 2402.09353, eq. 5): ``W' = m (W + s B A) / ‖W + s B A‖``, the norm over each output's weights, with the
magnitude `m [out]` starting as ‖W‖. The norm is taken as a constant in the backward pass (§ 4.3 there), as in PEFT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.methods import _attachment, _low_rank, _peft_settings, _targets, _wrappers

FAMILY = "reparameterized"
GOOD_FOR = "as lora, where a small rank is not enough; slower a step"
LEARNING_RATE = 2e-4
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = "LORA"
WHOLE = False

_NAME = "dora"


class Config(_low_rank.Ranks):
    """The keys of ``method: {name: dora}``."""

    init: Literal["kaiming", "gaussian"] = Field("kaiming", description="how A starts; B starts at zero")


class DoraLinear(_wrappers.Wrapper):
    """A linear layer `base` whose weight is turned by ``s B A`` and stretched to `magnitude [out]`, in float32.

    Raises Mistake for a quantized layer: its norms are not at hand.
    """

    def __init__(self, base: nn.Module, config: Config, path: str = "") -> None:
        super().__init__(base)
        width_in, width_out = _wrappers.widths(base)
        rank, device = config.rank(path), self.weight.device
        self.scaling, self.dropout = config.scaling(path), config.dropout
        self.lora_A = nn.Parameter(_low_rank.start(config.init, rank, width_in).to(device))
        self.lora_B = nn.Parameter(torch.zeros(width_out, rank, device=device))
        self.magnitude = nn.Parameter(self._norm())

    def learned(self) -> dict[str, Tensor]:
        """A, B and the magnitude."""
        sides = {"lora_A.weight": self.lora_A, "lora_B.weight": self.lora_B}
        return {**sides, "lora_magnitude_vector": self.magnitude}

    def merged(self) -> dict[str, Tensor]:
        """The base's weight, turned and stretched."""
        turned = _wrappers.matrix(self.base) + self.scaling * (self.lora_B @ self.lora_A)
        return {"weight": _wrappers.oriented(self.base, self._stretch()[:, None] * turned)}

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`: ``W x + (k − 1) W x + k s B A x`` with ``k = m / ‖W + s B A‖``."""
        output: Tensor = self.base(x)
        bias = getattr(self.base, "bias", None)
        straight = output.to(self.lora_A.dtype) if bias is None else output.to(self.lora_A.dtype) - bias
        dropped = functional.dropout(x, self.dropout, self.training) if self.dropout else x
        low = functional.linear(dropped.to(self.lora_A.dtype), self.lora_A)
        stretch = self._stretch()
        delta = (stretch - 1) * straight + stretch * self.scaling * functional.linear(low, self.lora_B)
        return (output + delta).to(output.dtype)

    def _stretch(self) -> Tensor:
        return self.magnitude / self._norm()

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """``‖W + s B A‖ [out]``, by its square ``‖W‖² + 2 s B · (W Aᵀ) + s² (B A Aᵀ) · B``, without the sum itself."""
        weight, a, b = _wrappers.matrix(self.base), self.lora_A, self.scaling * self.lora_B
        cross, own = (weight @ a.T * b).sum(1), (b @ (a @ a.T) * b).sum(1)
        square: Tensor = torch.linalg.vector_norm(weight, dim=1).square() + 2 * cross + own
        return square.sqrt()


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put a `DoraLinear` around every layer that the config names.

    Raises Mistake when a target matches nothing, or is quantized.
    """
    _attachment.refuse_stacking(model, _NAME)
    found = _targets.select(model, config)
    config.refuse_idle_patterns(found)
    _wrappers.lay_on(model, _NAME, config, {path: DoraLinear(base, config, path) for path, base in found.items()})


def detach(model: nn.Module) -> None:
    """Take the adapter away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Write the turned and stretched weights into the base, in float32, stored in the weight's own type.

    Raises Mistake for a weight that two layers share.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under PEFT's names: `lora_A`, `lora_B` and `lora_magnitude_vector` of every layer."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """What the optimizer gets: with `loraplus_lr_ratio` B learns faster than the rest (LoRA+, arXiv 2402.12354)."""
    return _low_rank.param_groups(model, _NAME)


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`: PEFT's LoRA with `use_dora`."""
    start = "gaussian" if config.init == "gaussian" else True
    return {**_low_rank.to_peft(model, config), "init_lora_weights": start, "use_dora": True}


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that PEFT wrote, from its settings and the names of its weights.

    Raises Mistake where a setting would change the result and is not understood.
    """
    if not settings.get("use_dora"):
        raise _peft_settings.NotMine("dora: use_dora is off; expected a DoRA adapter")
    _peft_settings.refuse_unknown(settings, _low_rank.UNDERSTOOD | {"use_dora"}, _NAME)
    start = settings.get("init_lora_weights", True)
    _low_rank.refuse_changed_base(start, _NAME)
    return Config(**_low_rank.from_peft(settings, names, _NAME), init="gaussian" if start == "gaussian" else "kaiming")

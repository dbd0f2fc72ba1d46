"""Small networks after the sublayers of a frozen model: narrow, bend, widen, add.

Adapters (arXiv 1902.00751, section 2.1): ``h ← h + W_up f(W_down h + b_down) + b_up`` on what a sublayer gives, before
it is added to the residual stream. Houlsby places one after attention and one after the feed-forward layer; Pfeiffer
(arXiv 2005.00247, section 3.1) one after the feed-forward layer alone, at half the cost. `W_up` and both biases are
zero at the start, so a fresh adapter changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.core.config import Section
from tunesmith.methods import _attachment, _parts, _wrappers

FAMILY = "additive"
GOOD_FOR = "many tasks side by side on one base, each far from the others"
LEARNING_RATE = 1e-3
MERGEABLE = False
MIXABLE = True
PEFT_TYPE: str | None = None
WHOLE = False

_NAME = "bottleneck"
_WEIGHTS = ("down_weight", "down_bias", "up_weight", "up_bias")


class Config(Section):
    """The keys of ``method: {name: bottleneck}``."""

    placement: Literal["houlsby", "pfeiffer"] = Field(
        "pfeiffer", description="houlsby: after attention and feed-forward; pfeiffer: after feed-forward alone"
    )
    reduction_factor: float = Field(16.0, ge=1, description="the model's width over the bottleneck's")
    activation: Literal["gelu", "relu", "silu", "tanh"] = Field("gelu", description="the bend between the two layers")


class AdaptedLinear(_wrappers.Wrapper):
    """A linear layer `base`, the last of a sublayer, and a bottleneck on what it gives, computed and added in float32.

    `down_weight [narrow, out]`, `down_bias [narrow]`, `up_weight [out, narrow]` and `up_bias [out]` are float32
    parameters. The result comes in the type of the base's own.
    """

    def __init__(self, base: nn.Module, config: Config) -> None:
        super().__init__(base, changes=())
        self.activation = config.activation
        device = self.weight.device
        _, width = _wrappers.widths(base)
        narrow = max(1, int(width / config.reduction_factor))
        # Drawn on the CPU, so that a seed means the same start on every device; as large as what comes in, per channel.
        down = torch.randn(narrow, width) * width**-0.5
        self.down_weight = nn.Parameter(down.to(device))
        self.down_bias = nn.Parameter(torch.zeros(narrow, device=device))
        self.up_weight = nn.Parameter(torch.zeros(width, narrow, device=device))
        self.up_bias = nn.Parameter(torch.zeros(width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        output: Tensor = self.base(x)
        wide = output.to(self.down_weight.dtype)
        narrow = getattr(functional, self.activation)(functional.linear(wide, self.down_weight, self.down_bias))
        return (wide + functional.linear(narrow, self.up_weight, self.up_bias)).to(output.dtype)

    def learned(self) -> dict[str, Tensor]:
        """The four parameters by name."""
        return {name: getattr(self, name) for name in _WEIGHTS}


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put an `AdaptedLinear` around the last layer of every sublayer that `placement` means.

    Raises Mistake when the model's layers go by names unknown here.
    """
    _attachment.refuse_stacking(model, _NAME)
    found = _parts.find(model, _parts.FEEDFORWARD_OUTPUT, "feed-forward output")
    if config.placement == "houlsby":
        found |= _parts.find(model, _parts.ATTENTION_OUTPUT, "attention output")
    wrapped = {path: AdaptedLinear(base, config) for path, base in found.items()}
    _wrappers.lay_on(model, _NAME, config, wrapped)


def detach(model: nn.Module) -> None:
    """Take the adapters away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights: ``base_model.model.<path>.down_weight`` …."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """What the adapters add, `factor` times."""
    return {name: weight * factor if "up_" in name.rpartition(".")[2] else weight for name, weight in weights.items()}

"""Two small vectors a layer between random matrices that all layers share: the smallest of the low-rank family.

VeRA (arXiv 2310.11454, eq. 2): ``h = W x + Λ_b B Λ_d A x``. `A [r, in]` and `B [out, r]` are drawn once from
`projection_prng_key`, frozen, and cut to each layer's widths; trained are `b [out]`, zero at the start, and `d [r]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _low_rank, _peft_settings, _targets, _wrappers

FAMILY = "reparameterized"
GOOD_FOR = "many adapters to keep: the smallest of the family, its shared matrices left out"
LEARNING_RATE = 1e-2
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = "VERA"
WHOLE = False

_NAME = "vera"
_WEIGHT = re.compile(r"base_model\.model\.(?P<path>.+)\.vera_lambda_[bd]")
_SIDES = ("base_model.vera_A", "base_model.vera_B")


class Config(_targets.Targets):
    """The keys of ``method: {name: vera}``, named as in PEFT."""

    r: int = Field(256, ge=1, description="rank of the shared random matrices: far higher than LoRA's")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs left out while training")
    d_initial: float = Field(0.1, gt=0, description="the first value of every number of d")
    projection_prng_key: int = Field(0, description="the seed of the shared random matrices")
    save_projection: bool = Field(True, description="write them down too; else they are drawn again from the key")


@dataclass
class Projections:
    """The matrices all layers share, as wide as the widest needs: `a [r, in]`, `b [out, r]`, float32 and frozen."""

    a: Tensor
    b: Tensor


class VeraLinear(_wrappers.Wrapper):
    """A linear layer `base` with ``Λ_b B Λ_d A`` beside it, computed and added in float32."""

    def __init__(self, base: nn.Module, shared: Projections, config: Config) -> None:
        super().__init__(base)
        self.shared, self.dropout = shared, config.dropout
        self.width_in, self.width_out = _wrappers.widths(base)
        device = self.weight.device
        self.vera_lambda_b = nn.Parameter(torch.zeros(self.width_out, device=device))
        self.vera_lambda_d = nn.Parameter(torch.full((config.r,), config.d_initial, device=device))

    def learned(self) -> dict[str, Tensor]:
        """The vectors b and d."""
        return {"vera_lambda_b": self.vera_lambda_b, "vera_lambda_d": self.vera_lambda_d}

    def merged(self) -> dict[str, Tensor]:
        """The base's weight plus the update."""
        a, b = self._own()
        delta = (self.vera_lambda_b[:, None] * b) @ (self.vera_lambda_d[:, None] * a)
        return {"weight": self.weight.float() + _wrappers.oriented(self.base, delta)}

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        output: Tensor = self.base(x)
        a, b = self._own()
        dropped = functional.dropout(x, self.dropout, self.training) if self.dropout else x
        low = self.vera_lambda_d * functional.linear(dropped.to(a.dtype), a)
        return (output + self.vera_lambda_b * functional.linear(low, b)).to(output.dtype)

    def _own(self) -> tuple[Tensor, Tensor]:
        return self.shared.a[:, : self.width_in], self.shared.b[: self.width_out]


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put a `VeraLinear` around every layer that the config names.

    Raises Mistake when a target matches nothing.
    """
    _attachment.refuse_stacking(model, _NAME)
    found = _targets.select(model, config)
    shared = _draw(config, list(found.values()))
    _wrappers.lay_on(model, _NAME, config, {path: VeraLinear(base, shared, config) for path, base in found.items()})


def detach(model: nn.Module) -> None:
    """Take the adapter away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Add every update to its layer's own weight, in float32, and store it in the weight's own type.

    Raises Mistake for a quantized layer, and for a weight that two layers share.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The trained vectors under PEFT's names: ``base_model.model.<path>.vera_lambda_b`` and ``vera_lambda_d``."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` or `written` gave back; raises Mistake unless names and shapes fit exactly.

    Where the shared matrices are among the weights they are taken from there, whatever the key would draw.
    """
    own, sides = state(model), dict(zip(_SIDES, _shared(model), strict=True))
    given = sides if any(side in weights for side in sides) else {}
    _attachment.copy_into(own | given, weights, _NAME)


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update `factor` times as strong: b carries it."""
    return {name: weight * factor if name.endswith("_b") else weight for name, weight in weights.items()}


def written(model: nn.Module, config: Config) -> tuple[Config, dict[str, Tensor]]:
    """What goes to disk: with `save_projection` the shared matrices too, since not every machine draws the same."""
    sides = dict(zip(_SIDES, _shared(model), strict=True)) if config.save_projection else {}
    return config, state(model) | sides


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`: every target spelled out, nothing left to a default."""
    layers = dict(_wrappers.wrappers(model))
    return {
        "r": config.r,
        "vera_dropout": config.dropout,
        "d_initial": config.d_initial,
        "projection_prng_key": config.projection_prng_key,
        "save_projection": config.save_projection,
        "target_modules": _targets.names_for(model, layers),
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "bias": "none",
        "modules_to_save": None,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that PEFT wrote, from its settings and the names of its weights.

    Raises Mistake where a setting would change the result and is not understood.
    """
    _peft_settings.refuse_unknown(settings, _UNDERSTOOD, _NAME)
    paths = sorted({match["path"] for name in names if (match := _WEIGHT.fullmatch(name))})
    if not paths:
        raise Mistake("vera: the adapter's file holds no vera_lambda_b and vera_lambda_d; expected an adapter of peft")
    return Config(
        r=settings.get("r", 256),
        dropout=settings.get("vera_dropout", 0.0),
        d_initial=settings.get("d_initial", 0.1),
        projection_prng_key=settings.get("projection_prng_key", 0),
        save_projection=settings.get("save_projection", True),
        target_modules=_low_rank.written_targets(settings, paths),
    )


_UNDERSTOOD = frozenset({
    "r", "vera_dropout", "d_initial", "projection_prng_key", "save_projection", "target_modules", "fan_in_fan_out",
    "init_weights", "layers_to_transform", "layers_pattern",
})  # fmt: skip


def _draw(config: Config, bases: Collection[nn.Module]) -> Projections:
    """The shared matrices as PEFT draws them: Kaiming uniform, A before B, on the CPU from the key."""
    widths = [_wrappers.widths(base) for base in bases]
    generator = torch.Generator().manual_seed(config.projection_prng_key)
    device: Any = next(iter(bases)).weight.device
    drawn = []
    for shape in ((config.r, max(one for one, _ in widths)), (max(one for _, one in widths), config.r)):
        bound = math.sqrt(6.0 / shape[1])
        drawn.append(torch.empty(shape).uniform_(-bound, bound, generator=generator).to(device))
    return Projections(*drawn)


def _shared(model: nn.Module) -> tuple[Tensor, Tensor]:
    layer = next(layer for _, layer in _wrappers.wrappers(model))
    assert isinstance(layer, VeraLinear)
    return layer.shared.a, layer.shared.b

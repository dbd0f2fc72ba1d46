"""Low-rank updates beside the frozen linear layers: small, mergeable, the usual first choice.

LoRA (arXiv 2106.09685, eq. 3): ``h = W x + (alpha / r) B A x`` with `A [r, in]` random and `B [out, r]` zero at the
start, so a fresh adapter changes nothing. With `use_rslora` the factor is ``alpha / sqrt(r)`` (arXiv 2312.03732), which
keeps large ranks learning at the same pace.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _peft_settings, _targets

FAMILY = "reparameterized"
GOOD_FOR = "the first choice for most work: near full tuning, small, mergeable"
LEARNING_RATE = 2e-4
MERGEABLE = True
MIXABLE = True
PEFT_TYPE: str | None = "LORA"
WHOLE = False

_NAME = "lora"
_WEIGHT = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?:A|B)\.weight")


class Config(Section):
    """The keys of ``method: {name: lora}``."""

    r: int = Field(16, ge=1, description="rank: how many directions each layer may change in")
    alpha: float = Field(32.0, gt=0, description="strength: the update is multiplied by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs left out while training")
    target_modules: str | list[str] = Field(
        _targets.ALL_LINEAR, description="all-linear, a list of layer names, or a regular expression"
    )
    use_rslora: bool = Field(False, description="multiply by alpha / sqrt(r) instead, for large ranks")
    init: Literal["kaiming", "gaussian"] = Field("kaiming", description="how A starts; B starts at zero")


class LoraLinear(nn.Module):
    """A linear layer `base` with a low-rank update beside it, computed and added in float32.

    `base` is any `nn.Linear` or `Conv1D`; `lora_A [r, in]` and `lora_B [out, r]` are float32 parameters; `scaling` and
    `dropout` are numbers. The result comes in the type of the base's own: float32 on a model the engine made ready, so
    that first, tiny updates are not rounded away.
    """

    def __init__(self, base: nn.Module, config: Config) -> None:
        super().__init__()
        width_in, width_out = _widths(base)
        self.base = base
        device = self.weight.device
        self.scaling = config.alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
        self.dropout = config.dropout
        # Drawn on the CPU, so that a seed means the same start on every device.
        self.lora_A = nn.Parameter(_start(config, width_in).to(device))
        self.lora_B = nn.Parameter(torch.zeros(width_out, config.r, dtype=torch.float32, device=device))

    @property
    def weight(self) -> Tensor:
        """The base's weight: transformers' code here and there asks a linear layer for its type."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]  # nn.Module types every attribute Tensor | Module
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        output: Tensor = self.base(x)
        dropped = functional.dropout(x, self.dropout, self.training) if self.dropout else x
        low = functional.linear(dropped.to(self.lora_A.dtype), self.lora_A)
        # One pass over the output instead of three: product, scaling and sum together.
        total = torch.addmm(output.flatten(0, -2).to(low.dtype), low.flatten(0, -2), self.lora_B.T, alpha=self.scaling)
        return total.view(output.shape).to(output.dtype)


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put a `LoraLinear` around every layer that `config.target_modules` names.

    Raises Mistake when a target matches nothing.
    """
    found = _targets.find(model, config.target_modules)
    _attachment.claim(model, _NAME)
    for path, base in found.items():
        _targets.replace(model, path, LoraLinear(base, config).train(base.training))


def detach(model: nn.Module) -> None:
    """Take the adapter away: the base's own modules are back in their places."""
    _attachment.expect(model, _NAME)
    for path, layer in _layers(model):
        _targets.replace(model, path, layer.base)
    _attachment.release(model, _NAME)


def merge(model: nn.Module) -> None:
    """Add every update to its layer's own weight, in float32, and store it in the weight's own type.

    The old weight tensors are left as they were for whoever else holds them. Raises Mistake for a quantized layer, and
    for an output head that shares its weight with the embedding, which would change along with it.
    """
    _attachment.expect(model, _NAME)
    layers = dict(_layers(model))
    holders = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    for path, layer in layers.items():
        if not layer.weight.is_floating_point():
            raise Mistake(
                f"lora: {path} is quantized and cannot take the update in; load the base unquantized to merge"
            )
        if holders.count(id(layer.weight)) > 1:
            raise Mistake(
                f"lora: {path} shares its weight with another layer, which would change with it; "
                f"keep the adapter beside the base, or train one without {path}"
            )
    with torch.no_grad():
        for layer in layers.values():
            delta = layer.scaling * (layer.lora_B @ layer.lora_A)
            delta = delta.T if isinstance(layer.base, Conv1D) else delta
            layer.weight.data = (layer.weight.float() + delta).to(layer.weight.dtype)
    detach(model)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under PEFT's names: ``base_model.model.<path>.lora_A.weight`` and ``lora_B``."""
    _attachment.expect(model, _NAME)
    return {
        f"base_model.model.{path}.lora_{side}.weight": weight.detach()
        for path, layer in _layers(model)
        for side, weight in (("A", layer.lora_A), ("B", layer.lora_B))
    }


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def scaled(weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update `factor` times as strong: B carries it, so that alpha stays and PEFT loads it as it is."""
    return {name: weight * factor if "lora_B" in name else weight for name, weight in weights.items()}


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`: every target spelled out, nothing left to a default."""
    layers = dict(_layers(model))
    return {
        "r": config.r,
        "lora_alpha": int(config.alpha) if float(config.alpha).is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": _targets.names_for(model, layers),
        "use_rslora": config.use_rslora,
        "init_lora_weights": "gaussian" if config.init == "gaussian" else True,
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "bias": "none",
        "modules_to_save": None,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that PEFT wrote, from its settings and the names of its weights.

    Raises Mistake for a variant of LoRA that is not understood here (DoRA, ranks that differ by layer …).
    """
    _peft_settings.refuse_unknown(settings, _UNDERSTOOD, _NAME)
    start = settings.get("init_lora_weights", True)
    if start not in (True, False, "gaussian", "orthogonal"):  # the others change the base too
        raise Mistake(
            f"lora: init_lora_weights: {start} is not plain LoRA; convert the adapter with peft's save_pretrained"
        )
    paths = sorted({match["path"] for name in names if (match := _WEIGHT.fullmatch(name))})
    if not paths:
        raise Mistake("lora: the adapter's file holds no lora_A and lora_B weights; expected a LoRA adapter of peft")
    return Config(
        r=settings.get("r", 8),
        alpha=settings.get("lora_alpha", 8),
        dropout=settings.get("lora_dropout", 0.0),
        target_modules=_written_targets(settings, paths),
        use_rslora=settings.get("use_rslora", False),
        init="gaussian" if start == "gaussian" else "kaiming",
    )


_UNDERSTOOD = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "init_lora_weights", "fan_in_fan_out",
    "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size",
})  # fmt: skip


def _written_targets(settings: Mapping[str, Any], paths: list[str]) -> list[str]:
    """The names PEFT was given where they alone say which layers have weights, else the layers themselves."""
    targets = settings.get("target_modules")
    narrowed = any(settings.get(key) for key in ("exclude_modules", "layers_to_transform"))
    if not isinstance(targets, list) or narrowed:
        return paths
    return sorted(name for name in targets if any(_targets.ends_with(path, name) for path in paths))


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    found = [(path, module) for path, module in model.named_modules() if isinstance(module, LoraLinear)]
    yield from found


def _widths(base: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; Conv1D keeps its weight as `[in, out]`."""
    if isinstance(base, Conv1D):
        return int(base.nx), int(base.nf)
    assert isinstance(base, nn.Linear)
    return base.in_features, base.out_features


def _start(config: Config, width: int) -> Tensor:
    """The first `A [r, width]`, as PEFT draws it: Kaiming uniform, or normal with deviation 1 / r."""
    weight = torch.empty(config.r, width, dtype=torch.float32)
    if config.init == "gaussian":
        return nn.init.normal_(weight, std=1 / config.r)
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

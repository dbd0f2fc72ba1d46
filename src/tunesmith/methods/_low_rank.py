"""What LoRA, DoRA and AdaLoRA share: ``W x + s B A x``, ranks and strengths by layer, PEFT's settings for them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _targets
from tunesmith.methods._wrappers import PREFIX, Wrapper, oriented, wrappers

_WEIGHT = re.compile(rf"{re.escape(PREFIX)}(?P<path>.+?)(?:\.base_layer)*\.lora_(?:embedding_)?[AB](?:\.weight)?")


class Ranks(_targets.Targets):
    """The keys of a method that adds an update of low rank, named as in PEFT."""

    r: int = Field(16, ge=1, description="rank: how many directions each layer may change in")
    alpha: float = Field(32.0, gt=0, description="strength: the update is multiplied by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs left out while training")
    use_rslora: bool = Field(False, description="multiply by alpha / sqrt(r) instead, for large ranks")
    rank_pattern: dict[str, int] = Field(
        default_factory=dict, description="layers with a rank of their own, by name or regular expression"
    )
    alpha_pattern: dict[str, float] = Field(
        default_factory=dict, description="layers with an alpha of their own, by name or regular expression"
    )
    loraplus_lr_ratio: float = Field(
        1.0, gt=0, description="LoRA+: how many times faster than A the matrix B learns; 16 is usual"
    )

    def rank(self, path: str) -> int:
        """The rank of the layer at `path`."""
        return _targets.for_path(path, self.rank_pattern, self.r)

    def scaling(self, path: str) -> float:
        """What the update of the layer at `path` is multiplied with (arXiv 2106.09685 and 2312.03732)."""
        rank = self.rank(path)
        return _targets.for_path(path, self.alpha_pattern, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def refuse_idle_patterns(self, paths: Collection[str]) -> None:
        """Raise Mistake for a rank or an alpha that no target has."""
        _targets.refuse_idle(self.rank_pattern, paths, "rank_pattern")
        _targets.refuse_idle(self.alpha_pattern, paths, "alpha_pattern")


class LowRankLinear(Wrapper):
    """A linear layer `base` with a low-rank update beside it, computed and added in float32.

    `base` is any `nn.Linear` or `Conv1D`. The result comes in the type of the base's own: float32 on a model the engine
    made ready, so that first, tiny updates are not rounded away.
    """

    scaling: float
    dropout: float

    def factors(self) -> tuple[Tensor, Tensor]:
        """The `A [rank, in]` and `B [out, rank]` of the update ``scaling · B A``, float32."""
        raise NotImplementedError

    def merged(self) -> dict[str, Tensor]:
        """The base's weight plus the update."""
        a, b = self.factors()
        return {"weight": self.weight.float() + oriented(self.base, self.scaling * (b @ a))}

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        output: Tensor = self.base(x)
        a, b = self.factors()
        dropped = functional.dropout(x, self.dropout, self.training) if self.dropout else x
        low = functional.linear(dropped.to(a.dtype), a)
        # One pass over the output instead of three: product, scaling and sum together.
        total = torch.addmm(output.flatten(0, -2).to(low.dtype), low.flatten(0, -2), b.T, alpha=self.scaling)
        return total.view(output.shape).to(output.dtype)


def start(init: str, rank: int, width: int) -> Tensor:
    """The first `A [rank, width]`, as PEFT draws it: Kaiming uniform, or normal with deviation 1 / rank.

    Drawn on the CPU, so that a seed means the same start on every device.
    """
    weight = torch.empty(rank, width, dtype=torch.float32)
    if init == "gaussian":
        return nn.init.normal_(weight, std=1 / rank)
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5))


def param_groups(model: nn.Module, method: str) -> list[dict[str, Any]]:
    """LoRA+ (arXiv 2402.12354, eq. 5): the B of every layer learns `loraplus_lr_ratio` times as fast as the rest."""
    ratio = _attachment.expect(model, method).config.loraplus_lr_ratio
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if ratio == 1.0:
        return [{"params": list(trained.values())}]
    fast = {name for name in trained if "lora_B" in name.split(".")}
    return [
        {"params": [parameter for name, parameter in trained.items() if name not in fast]},
        {"params": [parameter for name, parameter in trained.items() if name in fast], "scale": ratio},
    ]


def to_peft(model: nn.Module, config: Ranks) -> dict[str, Any]:
    """PEFT's settings of a low-rank update: every target spelled out, nothing left to a default."""
    layers = {path: layer for path, layer in wrappers(model) if layer.changes == ("weight",)}
    return {
        "r": config.r,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": _targets.names_for(model, layers),
        "use_rslora": config.use_rslora,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "bias": "none",
        "modules_to_save": None,
    }


UNDERSTOOD = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "init_lora_weights", "fan_in_fan_out",
    "rank_pattern", "alpha_pattern", "exclude_modules", "layers_to_transform", "layers_pattern", "eva_config",
    "megatron_core", "qalora_group_size",
})  # fmt: skip
"""Settings of PEFT's LoRA that change nothing here, or are read by `from_peft`."""


def from_peft(settings: Mapping[str, Any], names: Collection[str], method: str) -> dict[str, Any]:
    """The keys of `Ranks` for an adapter that PEFT wrote, from its settings and the names of its weights."""
    paths = sorted({match["path"] for name in names if (match := _WEIGHT.fullmatch(name))})
    if not paths:
        raise Mistake(f"{method}: the adapter's file holds no lora_A and lora_B weights; expected an adapter of peft")
    return {
        "r": settings.get("r", 8),
        "alpha": settings.get("lora_alpha", 8),
        "dropout": settings.get("lora_dropout", 0.0),
        "target_modules": written_targets(settings, paths),
        "use_rslora": settings.get("use_rslora", False),
        "rank_pattern": settings.get("rank_pattern") or {},
        "alpha_pattern": settings.get("alpha_pattern") or {},
    }


def refuse_changed_base(start: Any, method: str) -> None:
    """Raise Mistake for one of PEFT's `init_lora_weights` that changes the base, too."""
    if start not in (True, False, "gaussian", "orthogonal", "eva"):
        raise Mistake(
            f"{method}: init_lora_weights: {start} changes the base and is not understood; "
            "convert the adapter to plain LoRA with peft's save_pretrained"
        )


def written_targets(settings: Mapping[str, Any], paths: Collection[str]) -> list[str]:
    """The names PEFT was given where they alone say which layers have weights, else the layers themselves."""
    targets = settings.get("target_modules")
    parameters = settings.get("target_parameters") or []
    experts = {path for path in paths for name in parameters if _targets.ends_with(path, name.rpartition(".")[0])}
    narrowed = any(settings.get(key) is not None for key in ("exclude_modules", "layers_to_transform"))
    if not isinstance(targets, list) or narrowed:
        return sorted(set(paths) - experts)
    return sorted(name for name in targets if any(_targets.ends_with(path, name) for path in paths))

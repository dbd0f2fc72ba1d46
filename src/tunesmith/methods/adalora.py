"""Low-rank updates that share out their ranks by themselves: layers that matter more keep more directions.

AdaLoRA (arXiv 2303.10512): ``W + (alpha / r₀) P Λ Q`` (eq. 3) with P and Q kept near orthogonal by a penalty (eq. 4).
Each direction's importance is smoothed sensitivity times smoothed uncertainty (eqs. 8 to 11), and the least important
are set to zero in Λ until the budget of ranks, which falls along a cubic curve (eq. 12), is met. Q, Λ and P are PEFT's
`lora_A [r, in]`, `lora_E [r, 1]` and `lora_B [out, r]`; its details are kept, so that the same run prunes the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.methods import _attachment, _low_rank, _peft_settings, _targets, _wrappers

FAMILY = "reparameterized"
GOOD_FOR = "long runs on a tight size: ranks go where they matter, the rest is given up"
LEARNING_RATE = 2e-3
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = "ADALORA"
WHOLE = False

_NAME = "adalora"


class Config(_targets.Targets):
    """The keys of ``method: {name: adalora}``, named as in PEFT."""

    init_r: int = Field(12, ge=1, description="rank of every layer at the start")
    target_r: int = Field(8, ge=1, description="rank of a layer at the end, on average")
    alpha: float = Field(32.0, gt=0, description="strength: the update is multiplied by alpha / init_r")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs left out while training")
    tinit: int | None = Field(None, ge=0, description="steps before ranks are given up; default: a tenth of the run")
    tfinal: int | None = Field(None, ge=0, description="steps at the end with ranks fixed; default: three tenths")
    deltaT: int = Field(1, ge=1, description="steps from one sharing out of ranks to the next")
    beta1: float = Field(0.85, gt=0, lt=1, description="how slowly the smoothed sensitivity follows")
    beta2: float = Field(0.85, gt=0, lt=1, description="how slowly the smoothed uncertainty follows")
    orth_reg_weight: float = Field(0.5, ge=0, description="weight of the penalty that keeps directions orthogonal")
    rank_pattern: dict[str, int] = Field(
        default_factory=dict, description="ranks that layers have kept, by name; written into artifacts"
    )


class AdaloraLinear(_low_rank.LowRankLinear):
    """A linear layer with ``P Λ Q`` of `rank` directions beside it; `path` is where it lies in the model."""

    def __init__(self, base: nn.Module, config: Config, path: str = "") -> None:
        super().__init__(base)
        width_in, width_out = _wrappers.widths(base)
        rank, device = _targets.for_path(path, config.rank_pattern, config.init_r), self.weight.device
        self.scaling, self.dropout = config.alpha / (config.init_r + 1e-5), config.dropout  # PEFT's guard against 0
        self.lora_A = nn.Parameter((0.02 * torch.randn(rank, width_in)).to(device))
        self.lora_E = nn.Parameter(torch.zeros(rank, 1, device=device))
        self.lora_B = nn.Parameter((0.02 * torch.randn(width_out, rank)).to(device))

    def factors(self) -> tuple[Tensor, Tensor]:
        """``Λ Q`` and P."""
        return self.lora_A * self.lora_E, self.lora_B

    def learned(self) -> dict[str, Tensor]:
        """Q, Λ and P, by PEFT's names."""
        return {"lora_A": self.lora_A, "lora_B": self.lora_B, "lora_E": self.lora_E}


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put an `AdaloraLinear` around every layer that the config names.

    Raises Mistake when a target matches nothing.
    """
    _attachment.refuse_stacking(model, _NAME)
    found = _targets.select(model, config)
    _targets.refuse_idle(config.rank_pattern, found, "rank_pattern")
    _wrappers.lay_on(model, _NAME, config, {path: AdaloraLinear(base, config, path) for path, base in found.items()})


def detach(model: nn.Module) -> None:
    """Take the adapter away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Add every update to its layer's own weight, in float32, and store it in the weight's own type.

    Raises Mistake for a quantized layer, and for a weight that two layers share.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under PEFT's names: `lora_A`, `lora_B` and `lora_E` of every layer."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update `factor` times as strong: Λ carries it."""
    return {name: weight * factor if name.endswith("lora_E") else weight for name, weight in weights.items()}


def penalty(model: nn.Module) -> Tensor:
    """`orth_reg_weight` times the mean of ``‖PᵀP − I‖`` and ``‖QQᵀ − I‖`` (eq. 4, unsquared as in PEFT)."""
    config: Config = _attachment.expect(model, _NAME).config
    layers = [layer for _, layer in _layers(model)]
    squares = [layer.lora_A @ layer.lora_A.T for layer in layers] + [layer.lora_B.T @ layer.lora_B for layer in layers]
    norms = [torch.linalg.matrix_norm(square - torch.eye(len(square), device=square.device)) for square in squares]
    return config.orth_reg_weight * torch.stack(norms).mean()


def on_step(model: nn.Module, step: int, steps: int) -> None:
    """Follow every weight's importance, and share the ranks out where it is time."""
    attachment = _attachment.expect(model, _NAME)
    config: Config = attachment.config
    first, last = _phases(config, steps)
    memory, layers = attachment.memory, _layers(model)
    if step < last:
        _follow(memory, layers, config)
    whole = sum(len(layer.lora_E) for _, layer in layers)
    if step == last or (first < step < last and step % config.deltaT == 0):
        budget = rank_budget(step, whole, min(whole, config.target_r * len(layers)), first, last)
        _share_out(memory, layers, whole - budget)
    if step > last:
        for path, layer in layers:
            layer.lora_E.data.mul_(memory[f"{path}.kept"])


def rank_budget(step: int, whole: int, target: int, first: int, last: int) -> int:
    """Directions that may stay after `step`: all until `first`, `target` from `last` on, a cubic curve between."""
    if step <= first:
        return whole
    left = max(0.0, 1 - (step - first) / (last - first))
    return int((whole - target) * left**3 + target)


def written(model: nn.Module, config: Config) -> tuple[Config, dict[str, Tensor]]:
    """What goes to disk: without the directions that were given up, whose ranks the config then names."""
    if not any(name.endswith(".kept") for name in _attachment.expect(model, _NAME).memory):
        return config, state(model)
    weights: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path, layer in _layers(model):
        kept = layer.lora_E[:, 0] != 0
        ranks[path] = int(kept.sum())
        own = {"lora_A": layer.lora_A[kept], "lora_B": layer.lora_B[:, kept], "lora_E": layer.lora_E[kept]}
        weights |= {f"{_wrappers.PREFIX}{path}.{name}": tensor.detach() for name, tensor in own.items()}
    return config.model_copy(update={"rank_pattern": ranks}), weights


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`. The schedule of a run that is over is written as none."""
    layers = dict(_wrappers.wrappers(model))
    ranks = {
        f"{path}.lora_E": [True] * rank + [False] * (config.init_r - rank) for path, rank in config.rank_pattern.items()
    }
    return {
        "init_r": config.init_r,
        "target_r": config.target_r,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": _targets.names_for(model, layers),
        "tinit": 0,
        "tfinal": 0,
        "total_step": 1,
        "deltaT": config.deltaT,
        "beta1": config.beta1,
        "beta2": config.beta2,
        "orth_reg_weight": config.orth_reg_weight,
        "rank_pattern": ranks or None,
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "bias": "none",
        "modules_to_save": None,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that PEFT wrote, from its settings and the names of its weights.

    Raises Mistake where a setting would change the result and is not understood.
    """
    _peft_settings.refuse_unknown(settings, _low_rank.UNDERSTOOD | _SCHEDULE, _NAME)
    usual = Config()
    kept = settings.get("rank_pattern") or {}
    return Config(
        init_r=settings.get("init_r", 12),
        target_r=settings.get("target_r", 8),
        alpha=settings.get("lora_alpha", 8),
        dropout=settings.get("lora_dropout", 0.0),
        target_modules=_low_rank.from_peft(settings, names, _NAME)["target_modules"],
        deltaT=settings.get("deltaT", usual.deltaT),
        beta1=settings.get("beta1", usual.beta1),
        beta2=settings.get("beta2", usual.beta2),
        orth_reg_weight=settings.get("orth_reg_weight", usual.orth_reg_weight),
        rank_pattern={name.removesuffix(".lora_E"): sum(stays) for name, stays in kept.items()},
    )


_SCHEDULE = frozenset({
    "init_r", "target_r", "tinit", "tfinal", "total_step", "deltaT", "beta1", "beta2", "orth_reg_weight",
})  # fmt: skip


def _layers(model: nn.Module) -> list[tuple[str, AdaloraLinear]]:
    return [(path, layer) for path, layer in _wrappers.wrappers(model) if isinstance(layer, AdaloraLinear)]


def _phases(config: Config, steps: int) -> tuple[int, int]:
    """The last step with all ranks, and the one at which the ranks are fixed; at least a step lies between."""
    final = steps * 3 // 10 if config.tfinal is None else config.tfinal
    last = max(1, steps - final)
    return min(steps // 10 if config.tinit is None else config.tinit, last - 1), last


@torch.no_grad()
def _follow(memory: dict[str, Tensor], layers: list[tuple[str, AdaloraLinear]], config: Config) -> None:
    """Smooth every weight's sensitivity ``|w ∂L/∂w|`` and how far it strays from that (eqs. 8 to 10)."""
    for path, layer in layers:
        for name, weight in layer.learned().items():
            if weight.grad is None:
                continue
            now, key = (weight * weight.grad).abs(), f"{path}.{name}"
            for kind in ("sensitivity", "uncertainty"):
                memory.setdefault(f"{key}.{kind}", torch.zeros_like(weight))
            usual, strays = memory[f"{key}.sensitivity"], memory[f"{key}.uncertainty"]
            usual.mul_(config.beta1).add_(now, alpha=1 - config.beta1)
            strays.mul_(config.beta2).add_((now - usual).abs(), alpha=1 - config.beta2)


@torch.no_grad()
def _share_out(memory: dict[str, Tensor], layers: list[tuple[str, AdaloraLinear]], given_up: int) -> None:
    """Set Λ to zero for the least important directions of all layers; which ones stay is remembered."""
    scores = {path: _importance(memory, path) for path, _ in layers}
    ordered = torch.cat(list(scores.values())).sort().values
    for path, layer in layers:
        kept = scores[path] > ordered[given_up - 1] if given_up else torch.ones_like(scores[path], dtype=torch.bool)
        memory[f"{path}.kept"] = kept[:, None].to(layer.lora_E.dtype)
        layer.lora_E.mul_(memory[f"{path}.kept"])


def _importance(memory: Mapping[str, Tensor], path: str) -> Tensor:
    """Of each direction ``[r]``: that of its λ, and the mean of its entries in P and Q (eq. 11)."""

    def of(name: str) -> Tensor:
        return memory[f"{path}.{name}.sensitivity"] * memory[f"{path}.{name}.uncertainty"]

    return of("lora_E")[:, 0] + of("lora_A").mean(1) + of("lora_B").mean(0)

"""Learned factors on keys, values and inner activations: a number a channel, and nothing left over when merged.

(IA)³ (arXiv 2205.05638, eq. 1–2): ``softmax(Q (l_k ∘ K)ᵀ / √d) (l_v ∘ V)`` in attention and ``(l_ff ∘ γ(W₁ x)) W₂`` in
the feed-forward layer, every `l` one at the start. A layer's outputs are multiplied, a feed-forward layer's inputs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _parts, _peft_settings, _targets, _wrappers

FAMILY = "additive"
GOOD_FOR = "a few dozen examples; the smallest adapter that can be merged"
LEARNING_RATE = 1e-2
MERGEABLE = True
MIXABLE = True
PEFT_TYPE: str | None = "IA3"
WHOLE = False

_NAME = "ia3"
_AUTO = "auto"
_WEIGHT = re.compile(r"base_model\.model\.(?P<path>.+)\.ia3_l")


class Config(Section):
    """The keys of ``method: {name: ia3}``."""

    target_modules: str | list[str] = Field(
        _AUTO, description="auto (keys, values, feed-forward output), all-linear, a list of names, or a pattern"
    )
    feedforward_modules: str | list[str] = Field(
        _AUTO, description="those of target_modules whose inputs are multiplied; auto: the feed-forward outputs"
    )


class ScaledLinear(_wrappers.Wrapper):
    """A linear layer `base` whose outputs, or with `feedforward` inputs, are multiplied by `ia3_l`, in float32.

    `ia3_l` is a float32 parameter, `[out, 1]` or `[1, in]` as in PEFT. The result comes in the type of the base's own.
    """

    def __init__(self, base: nn.Module, feedforward: bool) -> None:
        biased = not feedforward and isinstance(getattr(base, "bias", None), Tensor)
        super().__init__(base, ("weight", "bias") if biased else ("weight",))
        self.feedforward = feedforward
        width_in, width_out = _wrappers.widths(base)
        shape = (1, width_in) if feedforward else (width_out, 1)
        self.ia3_l = nn.Parameter(torch.ones(shape, dtype=torch.float32, device=self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        factor = self.ia3_l.flatten()
        if self.feedforward:
            found: Tensor = self.base((x * factor).to(x.dtype))
            return found
        output: Tensor = self.base(x)
        return (output * factor).to(output.dtype)

    def learned(self) -> dict[str, Tensor]:
        """The factors, as PEFT names them."""
        return {"ia3_l": self.ia3_l}

    def merged(self) -> dict[str, Tensor]:
        """The base's weight, and its bias where outputs are multiplied, with the factors in them."""
        factors = {"weight": _wrappers.oriented(self.base, self.ia3_l), "bias": self.ia3_l.flatten()}
        return {name: getattr(self.base, name).float() * factors[name] for name in self.changes}


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put a `ScaledLinear` around every layer that the config names.

    Raises Mistake when a target matches nothing, or a feed-forward module is no target.
    """
    _attachment.refuse_stacking(model, _NAME)
    found, feedforward = _chosen(model, config)
    wrapped = {path: ScaledLinear(base, path in feedforward) for path, base in found.items()}
    _wrappers.lay_on(model, _NAME, config, wrapped)


def detach(model: nn.Module) -> None:
    """Take the factors away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Multiply every factor into its layer's own weight (and bias), in float32, stored in the weight's own type.

    The old tensors are left as they were for whoever else holds them. Raises Mistake for a quantized layer, and for an
    output head that shares its weight with the embedding, which would change along with it.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The factors under PEFT's names: ``base_model.model.<path>.ia3_l``."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The factors' distance from 1 `factor` times as long: merged, the weights have moved as much less."""
    return {name: 1 + factor * (weight - 1) for name, weight in weights.items()}


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`: every target spelled out, nothing left to a default."""
    layers = dict(_layers(model))
    targets, feedforward = _names_for(model, {path: layer.feedforward for path, layer in layers.items()})
    return {
        "target_modules": targets,
        "feedforward_modules": feedforward,
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "init_ia3_weights": True,
        "modules_to_save": None,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for factors that PEFT wrote. Raises Mistake for what is not understood here."""
    _peft_settings.refuse_unknown(settings, _UNDERSTOOD, _NAME)
    paths = sorted({match["path"] for name in names if (match := _WEIGHT.fullmatch(name))})
    if not paths:
        raise Mistake("ia3: the adapter's file holds no ia3_l weights; expected an IA3 adapter of peft")
    given = settings.get("feedforward_modules") or []
    if isinstance(given, str):
        feedforward = [path for path in paths if re.fullmatch(given, path)]
    else:
        feedforward = [path for path in paths if path.endswith(tuple(given))]
    return Config(target_modules=paths, feedforward_modules=feedforward)


_UNDERSTOOD = frozenset(
    {"target_modules", "feedforward_modules", "fan_in_fan_out", "exclude_modules", "init_ia3_weights"}
)


def _chosen(model: nn.Module, config: Config) -> tuple[dict[str, nn.Module], Collection[str]]:
    """The layers to scale by path, and the paths of those whose inputs are scaled."""
    if config.target_modules == _AUTO:
        feedforward = _parts.find(model, _parts.FEEDFORWARD_OUTPUT, "feed-forward output")
        found = {**_parts.find(model, _parts.KEYS_AND_VALUES, "projection to keys and values"), **feedforward}
    else:
        found = _targets.find(model, config.target_modules)
    if config.feedforward_modules == _AUTO:
        return found, {path for path in found if _parts.FEEDFORWARD_OUTPUT.fullmatch(path)}
    wanted = _targets.find(model, config.feedforward_modules) if config.feedforward_modules else {}
    for path in wanted:
        if path not in found:
            raise Mistake(
                f"method.feedforward_modules: {path} is not among target_modules; add it there or leave it out here"
            )
    return found, wanted


def _names_for(model: nn.Module, feedforward: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Names for all targets and for the feed-forward ones; PEFT wants the second among the first."""
    targets = _targets.names_for(model, feedforward)
    chosen = [
        name for name in targets if any(its for path, its in feedforward.items() if _targets.ends_with(path, name))
    ]
    reached = {path for path in feedforward if any(_targets.ends_with(path, name) for name in chosen)}
    if reached == {path for path, its in feedforward.items() if its}:
        return targets, chosen
    return sorted(feedforward), sorted(path for path, its in feedforward.items() if its)


def _layers(model: nn.Module) -> Iterator[tuple[str, ScaledLinear]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, ScaledLinear))

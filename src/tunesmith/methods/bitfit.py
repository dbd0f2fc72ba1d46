"""Only the biases are trained (and the norms, where a model has no biases): a tenth of a percent of the weights.

BitFit (arXiv 2106.10199). Llama-like models have no biases; their norm weights, one number a channel as a bias is, take
the biases' place. What is learned lies in the model's own weights: inference costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment

FAMILY = "selective"
GOOD_FOR = "little data, many tasks on one base; files of kilobytes"
LEARNING_RATE = 1e-3
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = False

_NAME = "bitfit"


class Config(Section):
    """The keys of ``method: {name: bitfit}``."""

    biases: bool = Field(True, description="train the biases")
    norms: Literal["auto"] | bool = Field("auto", description="train the norm weights; auto: when there are no biases")


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model but for its biases and, as `config` says, its norm weights, which become float32.

    Raises Mistake when that leaves nothing to train.
    """
    biases = _biases(model) if config.biases else []
    with_norms = not biases if config.norms == "auto" else config.norms
    chosen = biases + (_norm_weights(model) if with_norms else [])
    if not chosen:
        raise Mistake(
            f"method: bitfit with biases: {str(config.biases).lower()}, norms: {str(config.norms).lower()} "
            "finds nothing to train in this model; type --method.norms true"
        )
    _attachment.train_in_place(model, _NAME, chosen)


def detach(model: nn.Module) -> None:
    """Give the base its own biases and norm weights back, bit for bit."""
    _attachment.release(model, _NAME)


def merge(model: nn.Module) -> None:
    """Keep what was learned: it lies in the model's own weights already, in float32."""
    _attachment.release(model, _NAME, keep=True)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The trained biases and norm weights, by parameter name."""
    return _attachment.trained_in_place(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def _biases(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"]


def _norm_weights(model: nn.Module) -> list[str]:
    """Weights of layers called some kind of norm (`LlamaRMSNorm`, `LayerNorm`): every family has a class of its own."""
    return [
        f"{path}.weight"
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and isinstance(getattr(module, "weight", None), nn.Parameter)
    ]

"""Every weight of the model is trained: the most it can learn, and the most it can cost and forget.

The artifact is a whole model in transformers' format. The base's tensors are kept aside while training, so that the
base can be had back: 4 bytes a weight more than the base, before gradients and optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tunesmith.core.config import Section
from tunesmith.methods import _attachment

FAMILY = "full"
GOOD_FOR = "the most quality where data are many and memory is there"
LEARNING_RATE = 2e-5
ENCODER_LEARNING_RATE = 1e-4
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = True

_NAME = "full"


class Config(Section):
    """``method: {name: full}`` has no keys of its own."""


def attach(model: nn.Module, config: Config) -> None:
    """Make every parameter trainable, in float32. Raises Mistake for a quantized model."""
    _attachment.train_in_place(model, _NAME, [name for name, _ in model.named_parameters()])


def detach(model: nn.Module) -> None:
    """Give the base its own tensors back, bit for bit."""
    _attachment.release(model, _NAME)


def merge(model: nn.Module) -> None:
    """Keep what was learned: it lies in the model's own weights already, in float32."""
    _attachment.release(model, _NAME, keep=True)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name; tied ones once."""
    return _attachment.trained_in_place(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)

"""All that training changed: what a method holds, and the head that was made for the task (`_head`) beside it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from torch import Tensor, nn

from tunesmith.methods import _attachment, _head

_INSIDE, _BEFORE = "base_model.model.", "base_model."
"""PEFT wraps the model once more where layers are changed than where virtual tokens are put before them."""


def state(method: ModuleType, model: nn.Module) -> dict[str, Tensor]:
    """The method's state and the head's: all that trains, by name, the live tensors without gradient."""
    own: dict[str, Tensor] = method.state(model)
    return own | head(method, model)


def restore(method: ModuleType, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put back what `state` gave; raises Mistake unless names and shapes fit exactly."""
    new, own = head(method, model), method.state(model)
    method.restore(model, {key: tensor for key, tensor in weights.items() if key in own or key not in new})
    _attachment.copy_into(new, {key: tensor for key, tensor in weights.items() if key in new}, "head")


def merge(method: ModuleType, model: nn.Module) -> None:
    """The method's own merge; what the head learned stays in the model, too."""
    learned = {name: parameter.data for name, parameter in model.named_parameters() if _head.holds(model, name)}
    method.merge(model)
    for name, parameter in model.named_parameters():
        if name in learned:
            parameter.data = learned[name]


def head(method: ModuleType, model: nn.Module) -> dict[str, Tensor]:
    """The new head's weights, under PEFT's names where PEFT has the method; none beside a whole model."""
    if method.WHOLE:
        return {}
    before = "" if method.PEFT_TYPE is None else _BEFORE if hasattr(method, "prefix_tokens") else _INSIDE
    there = _attachment.attached(model)
    trained = there.head if there is not None else {}
    return {before + name: p.detach() for name, p in model.named_parameters() if name in trained}

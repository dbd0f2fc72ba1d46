"""The learning rate that suits a method on a model, when nobody says another."""

from __future__ import annotations

from types import ModuleType


def suited(method: ModuleType, kind: str) -> float:
    """The method's own peak rate for a model of a `kind`: "decoder", "encoder" or "encoder-decoder"."""
    usual: float = method.LEARNING_RATE
    return getattr(method, "ENCODER_LEARNING_RATE", usual) if kind == "encoder" else usual

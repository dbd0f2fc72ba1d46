"""A head that was made for the task, not loaded: it is trained beside whatever a method trains, and kept with it.

Methods need not know of it: `_attachment.claim` frees it and `release` gives it back, and `_state` adds it to what the
method learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

_MARK = "tunesmith_head"


def mark(model: nn.Module, paths: Sequence[str]) -> None:
    """Say which modules of the model are new: every method attached from now on trains them."""
    setattr(model, _MARK, tuple(paths))


def paths(model: nn.Module) -> tuple[str, ...]:
    """The modules that are new; () where all were loaded."""
    found: tuple[str, ...] = model.__dict__.get(_MARK, ())
    return found


def holds(model: nn.Module, path: str) -> bool:
    """Whether a module or parameter belongs to the new head."""
    return any(path == new or path.startswith(f"{new}.") for new in paths(model))

"""The registry: in a choice room every file without a leading underscore is one choice, and its name is its key.

There is no table to keep: the folder is the list. `tunesmith.methods/lora.py` is what `method: {name: lora}` picks.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from tunesmith.core.errors import Mistake, nearest

_HOUSE = Path(__file__).resolve().parent.parent


@cache
def names(room: str) -> tuple[str, ...]:
    """The choices of a room, in alphabetical order; nothing is imported to find them."""
    return tuple(sorted(path.stem for path in (_HOUSE / room).glob("*.py") if not path.stem.startswith("_")))


def choice(room: str, name: str) -> ModuleType:
    """Import the choice `name` of `room`, e.g. ``choice("methods", "lora")``.

    `-` and `_` are the same in a name. Raises Mistake, with the nearest name, when the room has no such file.
    """
    key = name.replace("-", "_")
    if key not in names(room):
        raise Mistake(f"{room}: there is no '{name}'; {nearest(key, names(room))}")
    return importlib.import_module(f"tunesmith.{room}.{key}")


@cache
def summary(room: str, name: str) -> str:
    """The first line of a choice's docstring, read from its source without importing it."""
    tree = ast.parse((_HOUSE / room / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]

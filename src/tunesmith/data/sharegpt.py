"""Conversations: ShareGPT's `conversations` (from, value) and OpenAI's `messages` (role, content)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data._row import BadField

ALSO = ("messages", "openai", "chatml")
_COLUMNS = ("messages", "conversations", "conversation", "dialog", "turns")


def fits(fields: Mapping[str, Any]) -> float:
    """Sure when a column of a usual name holds a list of turns."""
    return 1.0 if any(_is_turns(fields.get(name)) for name in _COLUMNS) else 0.0


def reshape(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`messages`, the turns as they are; a `system` column stands before them.

    `weight: 0` or `train: false` on an assistant's turn leaves it untrained.
    """
    turns = next((fields[name] for name in _COLUMNS if fields.get(name) is not None), None)
    if not isinstance(turns, list):
        raise BadField("messages", f"got {turns!r:.40}; expected a list of turns with role and content")
    system = fields.get("system")
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


def _is_turns(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and bool({"role", "from"} & first.keys())

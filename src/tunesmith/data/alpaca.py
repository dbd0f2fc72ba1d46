"""Alpaca: instruction, input, output (Dolly: instruction, context, response), `system` and `history` too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data._row import BadField


def fits(fields: Mapping[str, Any]) -> float:
    """Sure when there is an `instruction` and an `output` or `response`."""
    return 1.0 if "instruction" in fields and ("output" in fields or "response" in fields) else 0.0


def reshape(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`input` is the instruction with the input below it; a system prompt or a history makes it a conversation."""
    parts = [_text(fields, name) for name in ("instruction", "input", "context")]
    output = fields.get("output", fields.get("response"))
    prompt = "\n\n".join(part for part in parts if part)
    system, history = _text(fields, "system"), fields.get("history") or []
    if not system and not history:
        return {"input": prompt, "output": output}
    turns = [{"role": "system", "content": system}] if system else []
    for turn in history:
        if not (isinstance(turn, list | tuple) and len(turn) == 2):
            raise BadField("history", f"got {turn!r:.40}; expected pairs [question, answer]")
        turns += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": output}]
    return {"messages": turns}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadField(name, f"got {value!r:.40}; expected text")
    return value

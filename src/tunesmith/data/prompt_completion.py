"""Prompt and completion: two columns, of text or of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data._row import COMPLETIONS, PROMPTS, BadField


def fits(fields: Mapping[str, Any]) -> float:
    """Sure by the very names `prompt` and `completion` (or `response`); likely by the names others give the two."""
    prompt, completion = _first(fields, PROMPTS), _first(fields, COMPLETIONS)
    if not prompt or not completion:
        return 0.0
    return 0.95 if prompt == "prompt" and completion in {"completion", "response"} else 0.5


def reshape(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`input`, `output` and the `system` column, or `messages` when the prompt is a list of them."""
    prompt = fields.get(_first(fields, PROMPTS) or "prompt")
    completion = fields.get(_first(fields, COMPLETIONS) or "completion")
    if not isinstance(prompt, list):
        system = {"system": fields["system"]} if "system" in fields else {}
        return {"input": prompt, "output": completion, **system}
    answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    for turn in [*prompt, *answer]:
        if not isinstance(turn, dict):
            raise BadField("prompt", f"got {turn!r:.40}; expected messages with role and content")
    # Only the completion is to be learned, whatever the assistant said before it.
    return {"messages": [{**turn, "trained": False} for turn in prompt] + [dict(turn) for turn in answer]}


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in fields), None)

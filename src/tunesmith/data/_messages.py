"""Turns of a conversation, in any of the usual spellings, as messages."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from tunesmith.core.errors import nearest
from tunesmith.core.records import Message, Role
from tunesmith.data._row import BadField

_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
_ROLES |= {"human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
_ROLES |= {"bot": "assistant", "developer": "system"}


def messages_of(turns: Any, column: str, inputs_only: bool, notes: Counter[str]) -> tuple[Message, ...]:
    """The messages of one conversation: a system turn or none, then user and assistant by turns, an answer at the end.

    A question at the end that has no answer is left out and told in `notes`; with `inputs_only` it is what is wanted.
    Raises BadField on anything else out of order, empty, or not text.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise BadField(column, f"got {turns!r:.40}; expected a list of turns with role and content")
    messages = [_message(column, number, turn) for number, turn in enumerate(turns, start=1)]
    if messages[-1].role == "user" and not inputs_only:
        messages.pop()
        notes["the last turn is a question without an answer: the turn is left out"] += 1
    _check_order(column, messages, inputs_only)
    return tuple(messages)


def _check_order(column: str, messages: list[Message], inputs_only: bool) -> None:
    expected: Role = "user"
    for number, message in enumerate(messages, start=1):
        if message.role == "system" and number == 1:
            continue
        if message.role != expected:
            raise BadField(column, f"turn {number} is the {message.role}'s; expected user and assistant by turns")
        expected = "assistant" if expected == "user" else "user"
    if not inputs_only and not any(message.role == "assistant" and message.trained for message in messages):
        raise BadField(column, "no turn of the assistant to learn from; expected one at least", "empty")


def _message(column: str, number: int, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise BadField(column, f"turn {number}: got {turn!r:.40}; expected an object with role and content")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise BadField(column, f"turn {number}: the role {said!r} is not known; {nearest(str(said), _ROLES)}")
    content = _text(column, number, turn.get("content", turn.get("value")))
    if not content.strip() and role != "system":
        raise BadField(column, f"turn {number} is empty; expected text", "empty")
    weight = turn.get("weight")
    trained = bool(turn.get("trained", turn.get("train", True)) if weight is None else weight)
    return Message(role, content, trained)


def _text(column: str, number: int, content: Any) -> str:
    """Content as text, joined when it is in parts; parts of another kind (images) are refused rather than lost."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise BadField(column, f"turn {number}: got {text!r:.40}; expected text")
    if None in texts and isinstance(content, list):
        raise BadField(column, f"turn {number}: got a part that is not text; expected text only")
    return "".join(text or "" for text in texts)

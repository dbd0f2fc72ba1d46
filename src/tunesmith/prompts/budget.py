"""What fits into the context: how many worked examples, and rows that are too long, treated as the policy says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Encoded, Message
from tunesmith.prompts.render import Template

Policy = Literal["drop", "truncate", "error"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows that fit, and how many were dropped or shortened for it."""

    rows: tuple[Encoded, ...]
    dropped: int
    truncated: int


def fitting_shots(shots: Sequence[Sequence[Message]], longest: int, template: Template, context: int) -> int:
    """How many of the worked examples `shots`, in order, fit beside `longest` tokens of question and answer."""
    bare = len(template.conversation((Message("user", ""), Message("assistant", ""))).ids)
    used, count = longest, 0
    for encoded in template.conversations(tuple(shot) for shot in shots):
        # What a template writes once around a whole conversation is counted with `longest` already.
        used += max(1, len(encoded.ids) - bare) + bare
        if used > context:
            break
        count += 1
    return count


def cut(
    records: Sequence[Any],
    conversation: Callable[[Any], Sequence[Message]],
    template: Template,
    *,
    max_length: int,
    policy: Policy,
) -> Cut:
    """Encode records for training, none longer than `max_length` tokens.

    ``truncate`` takes the end off the text the row is about, never its answer nor the instruction; a row whose text
    cannot be shortened enough is dropped. Raises Mistake, naming the row, where the policy is ``error``.
    """

    def tokens(record: Any) -> int:
        return len(template.conversation(tuple(conversation(record))).ids)

    encoded = template.conversations(tuple(conversation(record)) for record in records)
    kept: list[Encoded] = []
    dropped = truncated = 0
    for record, row in zip(records, encoded, strict=True):
        if len(row.ids) <= max_length:
            kept.append(row)
            continue
        if policy == "error":
            raise Mistake(
                f"{record.source or 'a row'}: {len(row.ids)} tokens; expected at most {max_length} (max_length); "
                "raise max_length, or say too_long: truncate"
            )
        shorter = None
        if policy == "truncate":
            shorter = shortened(record, tokens, max_length)
        if shorter is None:
            dropped += 1
        else:
            kept.append(template.conversation(tuple(conversation(shorter))))
            truncated += 1
    return Cut(tuple(kept), dropped, truncated)


def shortened(record: Any, tokens: Callable[[Any], int], limit: int) -> Any | None:
    """The record with less of its text, so that `tokens(record)` is at most `limit`; None where that cannot be.

    A passage is shortened before a question; of a conversation the earliest turns go. The words of named entities stay,
    since each has its tag.
    """
    if isinstance(record, Chat):
        return _fewer_turns(record, tokens, limit)
    name = "context" if record.context else "input"
    text = getattr(record, name)
    if record.tokens or not text:
        return None
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        if tokens(dataclasses.replace(record, **{name: text[:middle]})) <= limit:
            low = middle
        else:
            high = middle - 1
    return dataclasses.replace(record, **{name: text[:low].rstrip()}) if low else None


def _fewer_turns(record: Chat, tokens: Callable[[Any], int], limit: int) -> Chat | None:
    system = tuple(turn for turn in record.messages[:1] if turn.role == "system")
    turns = record.messages[len(system) :]
    for first in range(1, len(turns)):
        if turns[first].role == "user":
            shorter = dataclasses.replace(record, messages=(*system, *turns[first:]))
            if tokens(shorter) <= limit:
                return shorter
    return None

"""What fits: how many shots the context has room for, and what becomes of rows that are too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal, TypeVar

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Encoded, Labelled, Message
from tunesmith.prompts.dialect import Messages
from tunesmith.prompts.render import Template
from tunesmith.prompts.shots import as_messages

Record = TypeVar("Record", Labelled, Chat)
Policy = Literal["drop", "truncate", "error"]
WithLeft = Callable[[int], Any]

_FEWEST_CHARACTERS = 40
_FEWEST_TOKENS = 3
"""Less than this of an input is no example any more; the row is dropped instead."""
_NEAR_ENOUGH = 8
"""Tokens that a shortened row may stay below the limit; each further try, of at most `_TRIES`, costs a tokenization."""
_TRIES = 8


def fitting_shots(shots: Sequence[Messages], longest: int, template: Template, context: int) -> int:
    """How many of the conversations `shots`, taken from the front, fit into `context` tokens beside `longest`.

    `longest` is the longest query's prompt and the longest answer it may get, in tokens. What a shot takes is what a
    prompt grows by when the shot is put before it.
    """
    query = (Message("user", "a"),)
    bare, *grown = map(len, template.prompts([query, *(as_messages([shot], query) for shot in shots)]))
    taken = accumulate((length - bare for length in grown), initial=longest)
    return max(0, sum(1 for tokens in taken if tokens <= context) - 1)


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows that all fit, the records they were made from (shortened where they had to be), and what was lost."""

    rows: tuple[Encoded, ...]
    records: tuple[Any, ...]
    dropped: int = 0
    truncated: int = 0


def cut(
    records: Sequence[Record],
    write: Callable[[Record], tuple[Message, ...]],
    template: Template,
    *,
    max_length: int,
    policy: Policy = "truncate",
) -> Cut:
    """Encode the conversation `write(record)` of each record; what is over `max_length` is treated as `policy` says.

    ``truncate`` makes the input `shortened` and renders it anew, so that instruction, template and answer stay whole;
    a row that would keep next to nothing is dropped. ``drop`` leaves the row out. Raises Mistake, naming the row, for
    ``error``.
    """
    rows: list[Encoded] = []
    kept: list[Record] = []
    truncated = 0
    for record, row in zip(records, template.conversations(map(write, records)), strict=True):
        if len(row.ids) > max_length:
            if policy == "error":
                raise Mistake(
                    f"{record.source or 'a row'}: got {len(row.ids):,} tokens; expected at most {max_length:,}; "
                    f"raise max_length, or type --too_long truncate"
                )
            shorter = None
            if policy == "truncate":
                shorter = shortened(record, lambda one: len(template.conversation(write(one)).ids), max_length)
            if shorter is None:
                continue
            record, row = shorter, template.conversation(write(shorter))
            truncated += 1
        rows.append(row)
        kept.append(record)
    return Cut(tuple(rows), tuple(kept), len(records) - len(rows), truncated)


def shortened(record: Record, tokens: Callable[[Record], int], limit: int) -> Record | None:
    """The record with less of its input, so that `tokens(record) <= limit`; None where not enough of it would be left.

    Words go from the middle of the longest part of the input, tagged tokens from their end, chats lose their earliest
    exchanges first. Found by interpolation, so that it is called a few times only; it may stay some tokens below the
    limit.
    """
    for size, least, with_left in _ways(record):
        if size <= least:
            continue
        low, high, too_many = least, size, tokens(record)
        best: Record = with_left(low)
        fitting = tokens(best)
        if fitting > limit:
            continue
        for _ in range(_TRIES):
            if high - low <= 1 or limit - fitting <= _NEAR_ENOUGH:
                break
            share = (limit - fitting) / (too_many - fitting)
            middle = min(high - 1, max(low + 1, low + int(share * (high - low))))
            tried = with_left(middle)
            length = tokens(tried)
            if length <= limit:
                low, best, fitting = middle, tried, length
            else:
                high, too_many = middle, length
        return best
    return None


def _ways(record: Labelled | Chat) -> list[tuple[int, int, WithLeft]]:
    """How a record can be shortened: its size, the least that may be left, and the record with so much of it left."""
    if isinstance(record, Chat):
        starts = [place for place, turn in enumerate(record.messages) if turn.role == "user"]
        if not starts:
            return []
        last = _later_turns(record, starts, 1)
        asked = next(place for place, turn in enumerate(last.messages) if turn.role == "user")
        size = len(last.messages[asked].content)
        return [
            (len(starts), 1, partial(_later_turns, record, starts)),
            (size, _FEWEST_CHARACTERS, partial(_cut_turn, last, asked)),
        ]
    if record.tokens:
        return [(len(record.tokens), _FEWEST_TOKENS, partial(_first_tokens, record))]
    field = max(("input", "context"), key=lambda name: len(getattr(record, name)))
    return [(len(getattr(record, field)), _FEWEST_CHARACTERS, partial(_cut_field, record, field))]


def _later_turns(record: Chat, starts: list[int], exchanges: int) -> Chat:
    head = tuple(turn for turn in record.messages[:1] if turn.role == "system")
    return replace(record, messages=(*head, *record.messages[starts[-exchanges] :]))


def _cut_turn(record: Chat, place: int, keep: int) -> Chat:
    turn = record.messages[place]
    shorter = replace(turn, content=_without_middle(turn.content, keep))
    return replace(record, messages=(*record.messages[:place], shorter, *record.messages[place + 1 :]))


def _first_tokens(record: Labelled, keep: int) -> Labelled:
    whole = keep
    while whole and record.tags[whole : whole + 1] and record.tags[whole].startswith("I-"):
        whole -= 1  # not in the middle of an entity
    tokens, tags = record.tokens[: whole or keep], record.tags[: whole or keep]
    return replace(record, input=" ".join(tokens), tokens=tokens, tags=tags)


def _cut_field(record: Labelled, field: str, keep: int) -> Labelled:
    # The name of the field is one of two of ours; `replace` cannot know.
    return replace(record, **{field: _without_middle(getattr(record, field), keep)})  # type: ignore[arg-type]


def _without_middle(text: str, keep: int) -> str:
    """About `keep` characters of a text, from its beginning and its end, whole words, with an ellipsis between."""
    head, tail = text[: keep - keep // 2], text[len(text) - keep // 2 :]
    head = head[: head.rfind(" ")] if " " in head else head
    tail = tail[tail.find(" ") + 1 :] if " " in tail else tail
    return f"{head.rstrip()} … {tail.lstrip()}"

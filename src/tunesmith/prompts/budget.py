"""What fits: how many shots the context has room for, and what becomes of rows that are too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Encoded, Labelled, Message
from tunesmith.prompts.dialect import Messages
from tunesmith.prompts.render import Template
from tunesmith.prompts.shots import as_messages

Record = TypeVar("Record", Labelled, Chat)
Policy = Literal["drop", "truncate", "error"]
Shortened = Callable[[int], Any]

_FEWEST_CHARACTERS = 40
_FEWEST_TOKENS = 3
"""Less than this of an input is no example any more; the row is dropped instead."""
_NEAR_ENOUGH = 8
"""Tokens that a shortened row may stay below the limit; each further try, of at most `_TRIES`, costs a tokenization."""
_TRIES = 8


def fit_shots(
    template: Template, shots: Sequence[Messages], queries: Sequence[Messages], *, context: int, max_new_tokens: int
) -> int:
    """How many of `shots` (conversations, taken from the front) fit before the longest of `queries` and its answer.

    ``longest query with its shots + max_new_tokens <= context``, counted on the very prompt, not estimated. 0 when the
    longest query leaves no room.
    """
    lengths = [len(ids) for ids in template.prompts(queries)]
    if not lengths:
        return 0
    longest = queries[lengths.index(max(lengths))]

    def fits(k: int) -> bool:
        return len(template.prompt(as_messages(shots[:k], longest))) + max_new_tokens <= context

    most, step = 0, 1
    while most < len(shots) and fits(min(most + step, len(shots))):
        most, step = min(most + step, len(shots)), step * 2
    while step > 1:
        step //= 2
        if most + step <= len(shots) and fits(most + step):
            most += step
    return most


@dataclass(frozen=True, slots=True)
class Cut(Generic[Record]):
    """Rows that all fit, the records they were made from (shortened where they had to be), and what was lost."""

    rows: tuple[Encoded, ...]
    records: tuple[Record, ...]
    dropped: int = 0
    truncated: int = 0


def shorten(
    records: Sequence[Record],
    write: Callable[[Record], tuple[Message, ...]],
    template: Template,
    *,
    max_length: int,
    policy: Policy = "truncate",
    prompts: bool = False,
) -> Cut[Record]:
    """Encode `write(record)` for each record; rows over `max_length` tokens are treated as `policy` says.

    ``truncate`` takes words from the middle of the longest part of the *input* and renders it anew (tagged tokens lose
    their end, chats their earliest exchanges), so that instruction, template and answer stay whole; a row that would
    keep next to nothing is dropped. ``drop`` leaves the row out; ``error`` raises Mistake. With `prompts` what is
    written are prompts: the rows are their ids, weight 0, and `max_length` is what the prompt may take.
    """

    def encode(several: Sequence[Record]) -> list[Encoded]:
        if prompts:
            return [Encoded(ids, (0.0,) * len(ids)) for ids in template.prompts(map(write, several))]
        return template.conversations(map(write, several))

    rows: list[Encoded] = []
    kept: list[Record] = []
    truncated = 0
    for record, row in zip(records, encode(records), strict=True):
        if len(row.ids) > max_length:
            if policy == "error":
                raise Mistake(
                    f"{record.source or 'a row'}: got {len(row.ids):,} tokens; expected at most {max_length:,}; "
                    f"raise max_length, or type --too_long truncate"
                )
            found = _fitted(record, row, encode, max_length) if policy == "truncate" else None
            if found is None:
                continue
            record, row = found
            truncated += 1
        rows.append(row)
        kept.append(record)
    return Cut(tuple(rows), tuple(kept), len(records) - len(rows), truncated)


def _fitted(
    record: Record, row: Encoded, encode: Callable[[Sequence[Record]], list[Encoded]], max_length: int
) -> tuple[Record, Encoded] | None:
    """A shortened form that fits and leaves little room, found by interpolation; None where none fits."""
    for size, least, shortened in _ways(record):
        if size <= least:
            continue
        low, high, too_many = least, size, len(row.ids)
        best, best_row = shortened(low), encode([shortened(low)])[0]
        if len(best_row.ids) > max_length:
            continue
        for _ in range(_TRIES):
            spare = max_length - len(best_row.ids)
            if high - low <= 1 or spare <= _NEAR_ENOUGH:
                break
            share = spare / (too_many - len(best_row.ids))
            middle = min(high - 1, max(low + 1, low + int(share * (high - low))))
            tried = shortened(middle)
            tried_row = encode([tried])[0]
            if len(tried_row.ids) <= max_length:
                low, best, best_row = middle, tried, tried_row
            else:
                high, too_many = middle, len(tried_row.ids)
        return best, best_row
    return None


def _ways(record: Labelled | Chat) -> list[tuple[int, int, Shortened]]:
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

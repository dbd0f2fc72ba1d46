"""Worked examples for the prompt: which ones, in which order, and as earlier turns of the conversation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Labelled, Message

Record = Labelled | Chat
How = Literal["random", "balanced", "similar"]

_EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff"
_WORD = rf"(?u)[{_EAST_ASIAN}]|[^\W{_EAST_ASIAN}]+"
"""Words of one letter too, and single characters where a script has no spaces."""


class Shots:
    """A pool of examples to choose shots from. Orders and the search index are made once, when first needed."""

    def __init__(self, pool: Sequence[Any]) -> None:
        self._pool: tuple[Record, ...] = tuple(pool)
        self._orders: dict[tuple[str, int], tuple[int, ...]] = {}

    def choose(self, record: Record | None, k: int, how: How = "random", seed: int = 0) -> list[Any]:
        """At most `k` examples for the prompt of `record` (None: for any), as many as the pool has.

        ``random`` and ``balanced`` do not look at the record, so that all rows share their shots, and the first 4 of
        8 are the 4. ``balanced`` takes each label once before any twice, in an order shuffled anew each round: labels
        that simply took turns would be a pattern for the model to go on with. The label of tagged words is which kinds
        of entities they have: most sentences have none, and teach only to find none. ``similar`` puts those most like
        the record by BM25 (Robertson & Zaragoza 2009) nearest to it, at the end (Liu et al. 2022, arXiv:2101.06804).

        An example that asks just what the record asks is never chosen: it would give the answer away. Raises Mistake
        for another `how`, and for ``similar`` without a record.
        """
        if how == "similar":
            if record is None:
                raise Mistake(
                    "shots: got how=similar and no query; expected a row to compare with; use random or balanced"
                )
            return self._similar(record, k)
        if how not in ("random", "balanced"):
            raise Mistake(f"shots: got how={how}; expected random, balanced or similar")
        return self._first(self._order(how, seed), record, k)

    def _first(self, order: Sequence[int], record: Record | None, k: int) -> list[Record]:
        asked = None if record is None else question(record)
        chosen: list[Record] = []
        for place in order:
            if len(chosen) >= k:
                break
            if self._questions[place] != asked:
                chosen.append(self._pool[place])
        return chosen

    @cached_property
    def _questions(self) -> tuple[str, ...]:
        return tuple(question(record) for record in self._pool)

    def _order(self, how: str, seed: int) -> tuple[int, ...]:
        if (how, seed) not in self._orders:
            shuffled = random.Random(seed)
            places = list(range(len(self._pool)))
            shuffled.shuffle(places)
            self._orders[how, seed] = tuple(self._in_rounds(places, shuffled) if how == "balanced" else places)
        return self._orders[how, seed]

    def _in_rounds(self, places: list[int], shuffled: random.Random) -> Iterator[int]:
        waiting: dict[str, list[int]] = defaultdict(list)
        for place in reversed(places):
            waiting[_label(self._pool[place])].append(place)
        while waiting:
            labels = sorted(waiting)
            shuffled.shuffle(labels)
            for label in labels:
                yield waiting[label].pop()
                if not waiting[label]:
                    del waiting[label]

    def _similar(self, record: Record, k: int) -> list[Record]:
        import bm25s

        if not self._pool or k < 1:
            return []
        asked = question(record)
        wanted = min(len(self._pool), k + self._questions.count(asked))
        query = bm25s.tokenize([asked], token_pattern=_WORD, stopwords=None, return_ids=False, show_progress=False)
        places, _ = self._index.retrieve(query, k=wanted, show_progress=False)
        return self._first([int(place) for place in places[0]], record, k)[::-1]

    @cached_property
    def _index(self) -> Any:
        import bm25s

        index = bm25s.BM25()
        words = bm25s.tokenize(list(self._questions), token_pattern=_WORD, stopwords=None, show_progress=False)
        index.index(words, show_progress=False)
        return index


def as_messages(shots: Sequence[Sequence[Message]], query: Sequence[Message]) -> tuple[Message, ...]:
    """The conversations `shots` as earlier turns of `query`, none of them trained.

    The system prompt is the query's; those of the shots are left out.
    """
    head = tuple(message for message in query[:1] if message.role == "system")
    turns = (turn for shot in shots for turn in shot if turn.role != "system")
    shown = (replace(turn, trained=False) if turn.role == "assistant" else turn for turn in turns)
    return (*head, *shown, *query[len(head) :])


def question(record: Record) -> str:
    """What a record asks, without its answer."""
    if isinstance(record, Chat):
        return "\n".join(message.content for message in record.messages if message.role == "user")
    return "\n".join(part for part in (record.context, record.input or " ".join(record.tokens)) if part)


def _label(record: Record) -> str:
    """What a balanced choice balances: the label; of tagged words, which kinds of entities there are."""
    if isinstance(record, Chat):
        return ""
    return record.output or ", ".join(sorted({tag[2:] for tag in record.tags} - {""}))

"""Worked examples for the prompt: chosen at random, with every label alike, or for their likeness to the question."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message, fingerprint

How = Literal["random", "balanced", "similar"]


class Shots:
    """A pool of records to choose worked examples from; what is worked out about the pool is kept."""

    def __init__(self, pool: Sequence[Any]) -> None:
        self.pool = tuple(pool)

    def choose(self, record: Any | None, k: int, how: How = "random", seed: int = 0) -> list[Any]:
        """At most `k` examples for `record` (None: for every record alike), never the record itself.

        ``random`` and ``balanced`` give the same examples whatever the record, so that all prompts begin alike;
        ``balanced`` takes the outputs in turn, the rarest as often as the commonest while they last. ``similar`` takes
        those that share most words with the record (BM25), the most similar last, next to the question. Fewer come
        back when the pool has no more. Raises Mistake for ``similar`` without a record.
        """
        own = None if record is None else fingerprint(record)
        if how == "similar":
            if record is None:
                raise Mistake("shots: got how=similar for no record in particular; expected random or balanced")
            found = [self.pool[place] for place in self._like(record, k + 1)]
            return [one for one in found if fingerprint(one) != own][:k][::-1]
        order = self._balanced(seed) if how == "balanced" else self._shuffled(seed)
        chosen: list[Any] = []
        for place in order:
            if len(chosen) == k:
                break
            if own is None or fingerprint(self.pool[place]) != own:
                chosen.append(self.pool[place])
        return chosen

    def _shuffled(self, seed: int) -> list[int]:
        return random.Random(seed).sample(range(len(self.pool)), len(self.pool))

    def _balanced(self, seed: int) -> list[int]:
        """Places of the pool, the outputs in turn, until every output's examples are used up."""
        by_output: dict[str, list[int]] = defaultdict(list)
        for place in self._shuffled(seed):
            by_output[getattr(self.pool[place], "output", "")].append(place)
        queues = [by_output[output] for output in sorted(by_output)]
        longest = max((len(queue) for queue in queues), default=0)
        return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]

    def _like(self, record: Any, k: int) -> list[int]:
        import numpy as np

        index, words = self._index
        known = [word for word in dict.fromkeys(_words(record)) if word in words]
        if not known:
            return list(range(min(k, len(self.pool))))
        scores = index.get_scores(known)
        return [int(place) for place in np.argsort(-scores, kind="stable")[:k]]

    @cached_property
    def _index(self) -> tuple[Any, set[str]]:
        import bm25s

        texts = [_words(record) or ["-"] for record in self.pool]
        index = bm25s.BM25()
        index.index(texts, show_progress=False)
        return index, {word for text in texts for word in text}


def as_messages(turns: Sequence[Sequence[Message]], prompt: Sequence[Message]) -> tuple[Message, ...]:
    """Worked examples as earlier turns of the conversation that ends in `prompt`; its system message stays in front."""
    system = tuple(message for message in prompt if message.role == "system")
    spoken = [message for shot in (*turns, prompt) for message in shot if message.role != "system"]
    return (*system, *spoken)


def _words(record: Any) -> list[str]:
    text = " ".join((getattr(record, "context", ""), getattr(record, "input", ""), *getattr(record, "tokens", ())))
    if messages := getattr(record, "messages", ()):
        text = messages[-1].content
    return re.findall(r"\w+", text.lower())

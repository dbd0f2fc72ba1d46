"""From documents to rows for an encoder: windows of running text, or pairs of pieces that follow one another."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from itertools import cycle, islice, pairwise
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.prompts.reading import Reader

Tokens = tuple[int, ...]

_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


def passages(reader: Reader, texts: Sequence[str], *, max_length: int, seed: int = 0) -> list[list[Encoded]]:
    """The rows of each document for what `reader` reads them as: `pairs` for "next", else `windows`."""
    limit = min(max_length, reader.window)
    if reader.kind == "next":
        return pairs(reader.tokenizer, texts, max_length=limit, seed=seed)
    return windows(reader.tokenizer, texts, max_length=limit)


def windows(tokenizer: Any, texts: Iterable[str], *, max_length: int) -> list[list[Encoded]]:
    """The rows of each document, `max_length` tokens at most with the special ones around each; nothing overlaps.

    A window without an ordinary token is left out: nothing in it could be hidden.
    """
    before, behind = _frame(tokenizer)
    room, special = max(1, max_length - len(before) - len(behind)), frozenset(tokenizer.all_special_ids)
    return [
        [
            Encoded((*before, *ids[start : start + room], *behind), ())
            for start in range(0, len(ids), room)
            if not special.issuperset(ids[start : start + room])
        ]
        for ids in _encoded(tokenizer, texts)
    ]


def pairs(tokenizer: Any, texts: Sequence[str], *, max_length: int, seed: int) -> list[list[Encoded]]:
    """The rows of each document: two consecutive pieces, sentences each, and one of another as ``meta["other"]``.

    The other one is the second piece of a pair drawn from `seed`, each of a pair drawn once; both are cut to the
    shorter, so that neither length nor ending tells them apart. A document of one sentence has no rows. Raises Mistake
    when only one document has any.
    """
    before, behind = _frame(tokenizer)
    room = max(2, max_length - len(before) - 2 * len(behind))
    found = [
        (document, first, second)
        for document, text in enumerate(texts)
        for first, second in pairwise(_pieces(_encoded(tokenizer, _sentences(text)), room // 2))
    ]
    made: list[list[Encoded]] = [[] for _ in texts]
    for (document, first, second), other in zip(found, _others(found, seed), strict=True):
        length = min(len(second), len(other))
        ids = (*before, *first, *behind, *second[:length], *behind)
        start = len(before) + len(first) + len(behind)
        made[document].append(Encoded(ids, (), second=start, meta={"other": other[:length]}))
    return made


def _others(found: Sequence[tuple[int, Tokens, Tokens]], seed: int) -> list[Tokens]:
    """For each pair the second piece of the next pair of another document, in an order drawn from `seed`."""
    if found and len({document for document, *_ in found}) < 2:
        raise Mistake(
            "objective: nsp: only one document has two sentences; expected several, to take other sentences from; "
            "give more documents, or type --objective mlm"
        )
    order = random.Random(seed).sample(range(len(found)), len(found))
    others: list[Tokens] = [()] * len(found)
    for place, pair in enumerate(order):
        later = islice(cycle(order), place + 1, None)
        others[pair] = next(found[one][2] for one in later if found[one][0] != found[pair][0])
    return others


def _pieces(sentences: Sequence[Tokens], most: int) -> list[Tokens]:
    """Sentences put together to pieces, `most` tokens at most and no more than half of all; two where there are two."""
    wanted = min(most, math.ceil(sum(map(len, sentences)) / 2))
    pieces: list[Tokens] = []
    for sentence in sentences:
        if pieces and len(pieces[-1]) + len(sentence) <= wanted:
            pieces[-1] += sentence
        else:
            pieces.append(sentence[:most])
    return pieces


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_ENDS.split(text) if sentence.strip()]


def _encoded(tokenizer: Any, texts: Iterable[str]) -> list[Tokens]:
    """The tokens of each text that has any, or none, without special ones around them."""
    given = list(texts)
    if not given:
        return []
    return [tuple(ids) for ids in tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"]]


def _frame(tokenizer: Any) -> tuple[Tokens, Tokens]:
    """The special tokens that the tokenizer puts before and behind a text."""
    whole, inner = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(place for place in range(len(whole)) if whole[place : place + len(inner)] == inner)
    return tuple(whole[:start]), tuple(whole[start + len(inner) :])

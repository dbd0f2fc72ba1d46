"""Rows that say the same thing, exactly or nearly, within a split and across splits."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from tunesmith.core.progress import track
from tunesmith.core.records import Labelled, Record
from tunesmith.data._content import answer, folded, question

NEAR = 0.8
"""Two rows are near duplicates from this Jaccard similarity of their pairs of neighbouring words."""

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")  # scripts without blanks count by character
_PERMUTATIONS, _BANDS, _ROWS = 64, 16, 4

Groups = tuple[tuple[int, ...], ...]
Pairs = frozenset[bytes]


def exact_duplicates(records: Sequence[Record]) -> Groups:
    """Groups of rows with the same question and the same answer, to the letter."""
    return _groups((question(record), answer(record)) for record in records)


def same_question(records: Sequence[Record]) -> Groups:
    """Groups of rows that ask the same, case and white space aside."""
    return _groups(folded(question(record)) for record in records)


def conflicts(records: Sequence[Record], same: Groups) -> Groups:
    """Those groups of `same_question` that are answered differently: for labels, a contradiction."""
    return tuple(group for group in same if len({folded(answer(records[index])) for index in group}) > 1)


def near_duplicates(records: Sequence[Record], threshold: float = NEAR) -> Groups:
    """Groups of rows whose questions are nearly the same, exact repeats included.

    A row joins the first earlier row that it is as similar to as `threshold`: MinHash and locality-sensitive hashing
    find the candidates (Broder 1997; 16 bands of 4 find 99.9 % of the pairs at 0.8), their exact similarity decides.
    The first row of each group stands for it, so the work grows with the rows and not with their pairs.
    """
    index = _Index(threshold)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    with track(len(records), "rows", "near duplicates") as bar:
        for number, record in enumerate(records):
            groups[index.head(number, _pairs(record))].append(number)
            bar.advance()
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def across(groups: Groups, split_of: Sequence[str]) -> Groups:
    """Those groups that stand on more than one side of a split."""
    return tuple(group for group in groups if len({split_of[index] for index in group}) > 1)


class _Index:
    """The first row of every group so far, found again by what it is similar to."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._threshold = threshold
        self._blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
        self._bands = MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _ROWS))
        self._heads: dict[int, Pairs] = {}
        self._head_of: dict[Pairs, int] = {}

    def head(self, number: int, pairs: Pairs) -> int:
        """The first row of the group that row `number` belongs to: its own number when it begins one."""
        if pairs not in self._head_of:
            self._head_of[pairs] = self._find(number, pairs)
        return self._head_of[pairs]

    def _find(self, number: int, pairs: Pairs) -> int:
        sketch = self._blank.copy()
        sketch.update_batch(list(pairs))
        alike = [head for head in self._bands.query(sketch) if _jaccard(self._heads[head], pairs) >= self._threshold]
        if alike:
            return int(min(alike))
        self._heads[number] = pairs
        self._bands.insert(number, sketch, check_duplication=False)
        return number


def _groups(keys: Iterable[Hashable]) -> Groups:
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return tuple(tuple(group) for group in found.values() if len(group) > 1)


def _pairs(record: Record) -> Pairs:
    """Pairs of neighbouring words. Questions on one passage are compared with each other only, by what they ask."""
    context = record.context if isinstance(record, Labelled) else ""
    asked = record.input if isinstance(record, Labelled) else question(record)
    passage = f"{zlib.crc32(folded(context).encode())} " if context else ""
    words = ["", *_WORDS.findall(asked.casefold()), ""]
    if len(words) == 2:  # emoji and punctuation alone
        words = ["", *asked.split(), ""]
    return frozenset(f"{passage}{one} {two}".encode() for one, two in pairwise(words))


def _jaccard(one: Pairs, other: Pairs) -> float:
    return len(one & other) / len(one | other)

"""Which queries look at which keys, as tiles of a few sizes.

Queries are looked up in tiles: up to `TILE` neighbours of one segment with all keys they may see, those of shared
ancestors too. Tiles are filled up to a few sizes and those of one size are one product, so a pack of many short rows
takes few calls, and products of sizes seen before (a new size makes oneDNN compile kernels, which took a tenth of all
time).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tunesmith.engine.cache import Cache
from tunesmith.engine.packing import Segment

TILE = 128
"""Queries that are looked up together: of a longer segment, keys behind a tile are left out."""
KEPT_KEYS = 512
"""Keys up to which attention weights are kept for the backward pass; beyond, they are computed again."""
TOGETHER = 1 << 18
"""Pairs of a query and a key in one product, roughly: some MB of scores stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where queries lie, `[start, stop)`, and where their keys lie: ranges of which the last ends at `stop`.

    A segment's queries see its ancestors and themselves; of a long segment each `TILE` queries are a span of their own,
    which leaves out the keys behind them: half of all for one long row.
    """

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Queries and keys, filled up to one of few sizes."""
        return _filled(self.stop - self.start), _filled(sum(stop - start for start, stop in self.keys))

    @property
    def kept(self) -> bool:
        """Whether the attention weights are kept for the backward pass; of many keys they are computed again."""
        return self.size[1] <= KEPT_KEYS


@dataclass(frozen=True, slots=True)
class Tiles:
    """Spans of one size, looked up in one product.

    `queries [n, q]` are flat positions, filled up with `total`; `keys [n, k]` likewise with 0; `hidden [n, q, 1, k]` is
    added to scores: minus infinity where a key may not be seen. `pieces` says where each run of keys lies among
    `n · k`: (first flat position, behind the last, place).
    """

    queries: Tensor
    keys: Tensor
    hidden: Tensor
    pieces: tuple[tuple[int, int, int], ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class Runs:
    """Segments as a kernel for rows of uneven lengths takes them: runs of queries, and of the keys that each may see.

    `queries` and `keys [runs + 1]` (int32) are where each begins, `most_queries` and `most_keys` the longest. The keys
    lie at the flat positions `gathered`, None where those are just all up to `covered`, which no segment goes beyond.
    """

    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int
    gathered: Tensor | None
    covered: int


@dataclass
class Context:
    """What a pass tells every layer: the spans, the precision of products, the cache if one is kept.

    `keep [N]` are the flat positions that anything is predicted from; where the model's layers are ours, the last one
    gives only these. With `recompute` layers keep nothing but their input and compute themselves again in backward.
    """

    spans: tuple[Span, ...]
    total: int
    dtype: torch.dtype
    device: torch.device
    cache: Cache | None = None
    keep: Tensor | None = None
    recompute: bool = False
    _tiles: dict[int | None, list[Tiles]] = field(default_factory=dict)
    _places: tuple[Tensor, Tensor, Tensor] | None = None
    _runs: Runs | None = None
    _empty: dict[int | None, Tensor] = field(default_factory=dict)

    def tiles(self, window: int | None) -> list[Tiles]:
        """The spans by size; the same for every layer with the same window, so made once."""
        if window not in self._tiles:
            alike: dict[tuple[int, int, bool], list[Span]] = {}
            for span in self.spans:
                alike.setdefault((*span.size, span.kept), []).append(span)
            self._tiles[window] = [
                _tiles(group, size[:2], size[2], self.total, window, self.device)
                for size, found in alike.items()
                for group in _together(found, size[0] * size[1])
            ]
        return self._tiles[window]

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """The spans as int32: queries `[spans, 2]`, where their ranges begin `[spans + 1]`, ranges of keys `[*, 2]`."""
        if self._places is None:
            found = (
                [(span.start, span.stop) for span in self.spans],
                np.cumsum([0, *(len(span.keys) for span in self.spans)]),
                [keys for span in self.spans for keys in span.keys],
            )
            queries, offsets, ranges = (torch.from_numpy(np.asarray(one, dtype=np.int32)) for one in found)
            self._places = queries, offsets, ranges
        return self._places

    @property
    def runs(self) -> Runs:
        """The spans as `Runs`, those of one segment as one; the same for every layer, so made once."""
        if self._runs is None:
            self._runs = _runs(self.spans, self.device)
        return self._runs

    def empty(self, cache: Cache, window: int | None, groups: int) -> Tensor:
        """What is added to the scores of a decoding step, `[rows · kv heads, 1, room]`.

        Minus infinity where nothing lies yet, 0 elsewhere; the same for every layer with the same window.
        """
        if window not in self._empty:
            places = torch.arange(cache.room, device=cache.lengths.device)
            hidden = places > cache.lengths.unsqueeze(1)
            if window is not None:
                hidden |= places <= cache.lengths.unsqueeze(1) - window
            empty = torch.zeros(hidden.shape, dtype=self.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self._empty[window] = empty.repeat_interleave(groups, dim=0).unsqueeze(1)
        return self._empty[window]


def expected(packed: Context | None) -> Context:
    """The context a layer was given; raises RuntimeError when the model was called as transformers' own is."""
    if packed is None:
        raise RuntimeError("this model was prepared for Tunesmith's engine; call engine.forward.forward(model, batch)")
    return packed


def _runs(spans: Sequence[Span], device: torch.device) -> Runs:
    whole: list[Span] = []
    for span in spans:
        # What goes on where the one before ended, and sees all that it saw, is the same segment gone on.
        if whole and span.start == whole[-1].stop and _begins(span) == _begins(whole[-1]):
            whole[-1] = Span(whole[-1].start, span.stop, span.keys)
        else:
            whole.append(span)
    queries = [span.stop - span.start for span in whole]
    keys = [sum(stop - start for start, stop in span.keys) for span in whole]
    positions = np.concatenate([np.arange(start, stop) for span in whole for start, stop in span.keys])
    covered = whole[-1].stop
    plain = len(positions) == covered and bool((positions == np.arange(covered)).all())
    gathered = None if plain else torch.from_numpy(positions).to(device)
    return Runs(_ends(queries, device), _ends(keys, device), max(queries), max(keys), gathered, covered)


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)).to(device)


def _begins(span: Span) -> tuple[object, ...]:
    """The ranges of a span's keys without the last one's end."""
    return (*span.keys[:-1], span.keys[-1][0])


def _filled(count: int) -> int:
    """The size a side of a tile is filled up to: the longer, the fewer sizes there are."""
    step = 32 if count <= 256 else 64 if count <= 1024 else 256
    return -(-count // step) * step


def _together(spans: Sequence[Span], pairs: int) -> Iterator[Sequence[Span]]:
    """Spans of one size in groups of 1, 2, 4, 8 …: other numbers would be new sizes of products."""
    most = 1
    while 2 * most * pairs <= TOGETHER:
        most *= 2
    while spans:
        while most > len(spans):
            most //= 2
        yield spans[:most]
        spans = spans[most:]


def _tiles(
    spans: Sequence[Span], size: tuple[int, int], kept: bool, total: int, window: int | None, device: torch.device
) -> Tiles:
    queries = np.full((len(spans), size[0]), total)
    keys = np.zeros((len(spans), size[1]), dtype=np.int64)
    hidden = np.zeros((len(spans), *size), dtype=np.float32)
    pieces = []
    for number, span in enumerate(spans):
        asked = span.stop - span.start
        queries[number, :asked] = np.arange(span.start, span.stop)
        place = 0
        for start, stop in span.keys:
            keys[number, place : place + stop - start] = np.arange(start, stop)
            pieces.append((start, stop, number * size[1] + place))
            place += stop - start
        behind = np.arange(size[1]) - np.arange(place - asked, place)[:, None]
        hidden[number, :asked][(behind > 0) if window is None else (behind > 0) | (behind <= -window)] = -np.inf
    on = [torch.from_numpy(one).to(device) for one in (queries, keys, hidden)]
    return Tiles(on[0], on[1], on[2].unsqueeze(2), tuple(pieces), kept)


def spans(segments: tuple[Segment, ...]) -> tuple[Span, ...]:
    """The spans of each segment, with the flat ranges they may look at."""
    seen: list[tuple[tuple[int, int], ...]] = []
    found: list[Span] = []
    for segment in segments:
        own = (segment.start, segment.start + segment.length)
        above = seen[segment.parent] if segment.parent >= 0 else ()
        joined = (*above[:-1], (above[-1][0], own[1])) if above and above[-1][1] == own[0] else (*above, own)
        seen.append(joined)
        for start in range(*own, TILE):
            stop = min(start + TILE, own[1])
            found.append(Span(start, stop, (*joined[:-1], (joined[-1][0], stop))))
    return tuple(found)

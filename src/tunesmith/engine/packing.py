"""Sequences laid end to end without padding, and a beginning that several share laid down once.

A segment sees its own earlier tokens and everything its ancestors hold, nothing else. Rows that begin alike (an
instruction, a block of shots, the prompt of several candidate answers) become children of one parent segment, so the
common part is computed once, forward and backward, and exactly: every row's targets point at the flat position that
predicts them, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tunesmith.core.records import Encoded

Item = TypeVar("Item")
Tokens = npt.NDArray[np.int64]
Way = tuple[tuple[int, int, int], ...]

WORTH_SHARING = 16
"""Tokens a shared beginning must save before it becomes a segment: each segment costs a few small products."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of flat positions `[start, start + length)`; `parent` is the index of an earlier segment, or -1.

    `second` is the place in it where its second text begins, 0 where there is none: encoders tell the two apart.
    """

    start: int
    length: int
    parent: int = -1
    adapter: str = ""
    second: int = 0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The one shape that training, scoring and generation share.

    `tokens [T]` and `positions [T]` are flat; `segments` tile `[0, T)`, parents before children. Target `i` says that
    the logits at flat position `index[i]` predict `labels[i]`, counting `weights[i]`; it belongs to row `row[i]` of the
    caller. `ways[r]` lists the flat ranges `(start, stop)` that row `r` runs through, first token to last.

    In a `whole` batch a row is a segment that is read in both directions: target `i` says that label `labels[i]` stands
    *at* flat position `index[i]`.
    """

    tokens: Tensor
    positions: Tensor
    segments: tuple[Segment, ...]
    index: Tensor
    labels: Tensor
    weights: Tensor
    row: Tensor
    ways: tuple[tuple[tuple[int, int], ...], ...]
    whole: bool = False

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch with its tensors on `device`."""
        if self.tokens.device == device:
            return self
        names = ("tokens", "positions", "index", "labels", "weights", "row")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def pack(
    rows: Sequence[Encoded],
    *,
    prefix: Sequence[int] = (),
    share: bool = True,
) -> PackedBatch:
    """Lay rows into one batch; the last token of a row is only ever a label, so it takes no place.

    `prefix` holds tokens put before every row (the virtual tokens of a soft prompt); they are shared like any
    beginning. `share=False` keeps every row a segment of its own, for tests and comparison. Rows with labels are laid
    down whole (`pack_whole`). Raises ValueError on a row of fewer than two tokens.
    """
    if rows and rows[0].labels:
        return pack_whole(rows, prefix=prefix)
    sequences = [np.asarray([*prefix, *row.ids], dtype=np.int64) for row in rows]
    if any(len(sequence) < 2 for sequence in sequences):
        raise ValueError("a row needs at least two tokens: one to predict from and one to predict")
    layout = _lay(sequences, [row.adapter for row in rows], share)
    index, labels, weights, owner = [], [], [], []
    for i, row in enumerate(rows):
        wanted = np.concatenate([np.zeros(len(prefix)), np.asarray(row.weights, dtype=np.float64)])
        places = np.flatnonzero(wanted)
        places = places[places > 0]
        flat = layout.flat_positions(i, len(sequences[i]) - 1)
        index.append(flat[places - 1])
        labels.append(sequences[i][places])
        weights.append(wanted[places])
        owner.append(np.full(len(places), i))
    return PackedBatch(
        tokens=torch.from_numpy(np.concatenate(layout.tokens)),
        positions=torch.from_numpy(np.concatenate(layout.positions)),
        segments=tuple(layout.segments),
        index=torch.from_numpy(np.concatenate(index)),
        labels=torch.from_numpy(np.concatenate(labels)),
        weights=torch.from_numpy(np.concatenate(weights)).float(),
        row=torch.from_numpy(np.concatenate(owner)),
        ways=tuple(
            tuple((start, start + last - first) for start, first, last in layout.paths[i]) for i in range(len(rows))
        ),
    )


def pack_whole(rows: Sequence[Encoded], *, prefix: Sequence[int] = ()) -> PackedBatch:
    """Lay rows that are read as wholes end to end, the tokens of `prefix` before each; nothing is shared.

    What two rows begin with alike still sees how each goes on, so its states are not the same.
    """
    sequences = [np.asarray([*prefix, *row.ids], dtype=np.int64) for row in rows]
    starts = np.cumsum([0, *map(len, sequences)]).tolist()
    seconds = [row.second and row.second + len(prefix) for row in rows]
    lengths = [len(sequence) for sequence in sequences]
    places = [start + len(prefix) + place for start, row in zip(starts, rows, strict=False) for place, _ in row.labels]
    owners = [i for i, row in enumerate(rows) for _ in row.labels]
    return PackedBatch(
        tokens=torch.from_numpy(np.concatenate(sequences)),
        positions=torch.cat([torch.arange(length) for length in lengths]),
        segments=tuple(
            Segment(start, length, -1, row.adapter, second)
            for start, length, row, second in zip(starts, lengths, rows, seconds, strict=False)
        ),
        index=torch.tensor(places, dtype=torch.long),
        labels=torch.tensor([label for row in rows for _, label in row.labels], dtype=torch.long),
        weights=torch.tensor([weight for row in rows for weight in row.weights[: len(row.labels)]]).float(),
        row=torch.tensor(owners, dtype=torch.long),
        ways=tuple(((start, start + length),) for start, length in zip(starts, lengths, strict=False)),
        whole=True,
    )


def plan_whole(rows: Sequence[Encoded], *, max_tokens: int, prefix_length: int = 0) -> list[list[int]]:
    """Divide rows into packs of like length, at most `max_tokens` tokens each once padded to their longest."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), rows[i].ids)):
        longest = prefix_length + len(rows[i].ids)
        if not groups or (len(groups[-1]) + 1) * longest > max_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


def plan(rows: Sequence[Encoded], *, max_tokens: int, prefix_length: int = 0, share: bool = True) -> list[list[int]]:
    """Divide rows into packs of at most `max_tokens` flat tokens (a longer row gets a pack to itself).

    Rows that begin alike are put together, so that what they share is laid down once a pack; where nothing is shared,
    rows of one length are, so that little is padded. Returns lists of row indices, every row exactly once.
    """
    if rows and rows[0].labels:
        return plan_whole(rows, max_tokens=max_tokens, prefix_length=prefix_length)
    order = sorted(range(len(rows)), key=lambda i: _place(rows[i], share))
    groups: list[list[int]] = []
    start = 0
    while start < len(order):
        group = _fill(rows, order[start:], max_tokens, prefix_length, share)
        while len(group) > 1 and _laid(rows, group, prefix_length, share) > max_tokens:
            group.pop()  # a beginning too short to be worth a segment was counted as shared
        groups.append(group)
        start += len(group)
    return groups


def packs(
    rows: Sequence[Encoded], *, max_tokens: int, prefix: Sequence[int] = (), share: bool = True
) -> Iterator[tuple[list[int], PackedBatch]]:
    """`plan` and `pack` together: batches with the indices of the rows they hold, one at a time."""
    for group in plan(rows, max_tokens=max_tokens, prefix_length=len(prefix), share=share):
        yield group, pack([rows[i] for i in group], prefix=prefix, share=share)


def _place(row: Encoded, share: bool) -> tuple[str, int, tuple[int, ...]]:
    """Where a row comes when packs are filled; its length is that of what candidate answers have in common."""
    return row.adapter, 0 if share else row.weights.count(0.0), row.ids


def _fill(rows: Sequence[Encoded], order: Sequence[int], max_tokens: int, prefix_length: int, share: bool) -> list[int]:
    """The first rows of `order` that fit into a pack if all they have in common with the one before is shared."""
    group: list[int] = []
    used = 0
    for i in order:
        cost = prefix_length + len(rows[i].ids) - 1
        if share and group and rows[group[-1]].adapter == rows[i].adapter:
            cost -= prefix_length + _common(np.asarray(rows[group[-1]].ids[:-1]), np.asarray(rows[i].ids[:-1]))
        if group and used + cost > max_tokens:
            break
        group.append(i)
        used += cost
    return group


def _laid(rows: Sequence[Encoded], group: Sequence[int], prefix_length: int, share: bool) -> int:
    """Flat tokens of a pack of these rows, exactly."""
    prefix = range(-prefix_length, 0)
    sequences = [np.asarray([*prefix, *rows[i].ids], dtype=np.int64) for i in group]
    return _lay(sequences, [rows[i].adapter for i in group], share).total


def _lay(sequences: Sequence[Tokens], adapters: Sequence[str], share: bool) -> _Layout:
    """Lay down sequences without their last tokens, those of one adapter together."""
    layout = _Layout()
    inputs = [sequence[:-1] for sequence in sequences]
    order = sorted(range(len(inputs)), key=lambda i: (adapters[i], inputs[i].tolist())) if share else range(len(inputs))
    for adapter, group in _runs(order, [adapters[i] for i in order]):
        paired = [(i, inputs[i]) for i in group]
        for together in [paired] if share else [[one] for one in paired]:
            layout.add_shared(together, str(adapter))
    return layout


class _Layout:
    """Segments as they are laid down, and the way of each row through them."""

    def __init__(self) -> None:
        self.tokens: list[Tokens] = []
        self.positions: list[Tokens] = []
        self.segments: list[Segment] = []
        self.paths: dict[int, Way] = {}
        self.total = 0

    def add(self, tokens: Tokens, position: int, parent: int, adapter: str) -> int:
        """Lay down one segment whose first token stands at `position` of its sequence; returns its index."""
        self.segments.append(Segment(self.total, len(tokens), parent, adapter))
        self.tokens.append(tokens)
        self.positions.append(np.arange(position, position + len(tokens)))
        self.total += len(tokens)
        return len(self.segments) - 1

    def add_shared(self, group: list[tuple[int, Tokens]], adapter: str) -> None:
        """Lay down sequences, in lexicographic order, as a tree of the common beginnings that are worth a segment."""
        # Of each subtree still to be laid: its sequences, how many tokens of each lie in ancestors already, the last of
        # these, and all of them as (start, first, last token). A list, since rows may be nested deeper than calls may.
        waiting: list[tuple[list[tuple[int, Tokens]], int, int, Way]]
        waiting = [(group, 0, -1, ())]
        while waiting:
            group, depth, parent, way = waiting.pop()
            first, last = group[0][1], group[-1][1]
            shared = _common(first, last)
            same = shared == len(first) == len(last)
            if same or (shared - depth) * (len(group) - 1) >= WORTH_SHARING:
                if shared > depth:
                    parent = self.add(first[depth:shared], depth, parent, adapter)
                    way = _joined(way, (self.segments[parent].start, depth, shared))
                    depth = shared
                if same:
                    self.paths.update((i, way) for i, _ in group)
                    continue
            parts = _runs(group, [int(tokens[shared]) if len(tokens) > shared else -1 for _, tokens in group])
            waiting += [(part, depth, parent, way) for _, part in reversed(parts)]

    def flat_positions(self, row: int, length: int) -> Tokens:
        """Flat position of each of a row's tokens."""
        flat = np.empty(length, dtype=np.int64)
        for start, first, last in self.paths[row]:
            flat[first:last] = np.arange(start, start + last - first)
        return flat


def _joined(way: Way, last: tuple[int, int, int]) -> Way:
    """A way gone on; where the new piece lies right behind the one before, they are one."""
    if way and way[-1][0] + way[-1][2] - way[-1][1] == last[0]:
        return (*way[:-1], (way[-1][0], way[-1][1], last[2]))
    return (*way, last)


def _runs(items: Sequence[Item], keys: Sequence[object]) -> list[tuple[object, list[Item]]]:
    """Group neighbours that have the same key."""
    runs: list[tuple[object, list[Item]]] = []
    for item, key in zip(items, keys, strict=True):
        if not runs or runs[-1][0] != key:
            runs.append((key, []))
        runs[-1][1].append(item)
    return runs


def _common(first: Tokens, second: Tokens) -> int:
    """Length of the common beginning of two token arrays."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length

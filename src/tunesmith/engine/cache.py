"""Keys and values of sequences that are being continued."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

BLOCK = 64
"""Tokens by which a cache grows."""


@dataclass(slots=True)
class Cache:
    """Keys and values of several sequences for decoding, per layer `[2, rows, kv heads, head size, room]`.

    Filled by one packed pass over the prompts (`ways`, as in PackedBatch; a shared beginning is copied to every row
    that has it), then grown by one token a row at each decoding step. `lengths [rows]` counts what each row holds.
    """

    ways: tuple[tuple[tuple[int, int], ...], ...]
    lengths: Tensor
    kept: dict[int, Tensor] = field(default_factory=dict)
    decoding: bool = False
    room: int = 0

    def fill(self, layer: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> None:
        """Keep the keys and values of every row, `[kv heads, T, head size]`."""
        self.room = (int(self.lengths.max()) // BLOCK + 1) * BLOCK
        shape = (2, len(self.ways), key.shape[0], key.shape[2], self.room)
        kept = self.kept[layer] = key.new_zeros(shape, dtype=dtype)
        for side, new in zip(kept, (key, value), strict=True):
            for row, way in enumerate(self.ways):
                place = 0
                for start, stop in way:
                    side[row, :, :, place : place + stop - start] = new[:, start:stop].transpose(1, 2)
                    place += stop - start

    def make_room(self) -> None:
        """See that another token fits; called before each decoding step."""
        if int(self.lengths.max()) >= self.room:
            self.room += BLOCK
            for layer, kept in self.kept.items():
                self.kept[layer] = nn.functional.pad(kept, (0, BLOCK))

    def add(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Keep one more token of every row, `new [rows, 2, kv heads, head size]`; gives all keys and all values.

        They come whole, `[rows · kv heads, head size, room]`, with room at the end that holds nothing yet: products of
        a whole tensor need no copy of it.
        """
        kept = self.kept[layer]
        new = new.to(kept.dtype).transpose(0, 1).unsqueeze(-1)
        kept.scatter_(-1, self.lengths.view(1, -1, 1, 1, 1).expand(new.shape), new)
        keys, values = kept.view(2, -1, *kept.shape[3:])
        return keys, values

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices), in this order."""
        self.lengths = self.lengths[rows]
        for layer, kept in self.kept.items():
            self.kept[layer] = kept[:, rows]

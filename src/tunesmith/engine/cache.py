"""Keys and values of sequences that are being continued."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

BLOCK = 64
"""Tokens by which a cache grows."""


@dataclass(slots=True)
class Cache:
    """Keys and values of several sequences for decoding, per layer `[rows, kv heads, room, head size]`.

    Filled by one packed pass over the prompts (`ways`, as in PackedBatch; a shared beginning is copied to every row
    that has it), then grown by one token a row at each decoding step. `lengths [rows]` counts what each row holds.
    """

    ways: tuple[tuple[tuple[int, int], ...], ...]
    lengths: Tensor
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    decoding: bool = False
    room: int = 0
    _heads: int = 0
    _places: tuple[Tensor, ...] = ()

    def fill(self, layer: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> None:
        """Keep the keys and values of every row, `[kv heads, T, head size]`."""
        self.room, self._heads = int(self.lengths.max()) + BLOCK, len(key)
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer] = new.new_zeros((len(self.ways), key.shape[0], self.room, key.shape[2]), dtype=dtype)
            for row, way in enumerate(self.ways):
                place = 0
                for start, stop in way:
                    kept[layer][row, :, place : place + stop - start] = new[:, start:stop]
                    place += stop - start

    def make_room(self) -> None:
        """See that another token fits; called before each decoding step."""
        each = torch.arange(len(self.lengths), device=self.lengths.device)
        self._places = (each.unsqueeze(1), torch.arange(self._heads, device=each.device), self.lengths.unsqueeze(1))
        if int(self.lengths.max()) < self.room:
            return
        self.room += BLOCK
        for kept in (self.keys, self.values):
            for layer in kept:
                kept[layer] = nn.functional.pad(kept[layer], (0, 0, 0, BLOCK))

    def add(self, layer: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keep one more token of every row, `[kv heads, rows, head size]`; gives all keys and all values.

        They come whole, with room at the end that holds nothing yet: products of a whole tensor need no copy of it.
        """
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer].index_put_(self._places, new.transpose(0, 1).to(dtype))
        return self.keys[layer], self.values[layer]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices), in this order."""
        self.lengths = self.lengths[rows]
        for kept in (self.keys, self.values):
            for layer in kept:
                kept[layer] = kept[layer][rows]

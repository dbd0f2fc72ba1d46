"""What a method may ask about a model at the beginning of a run, beyond the modules it is laid on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Beginning:
    """What `begin` of a method gets.

    `keys_and_values(ids)` are those, `[tokens, layers, 2, width]`, that the model has for tokens at positions 0, 1, ….
    `whole(path)` is the weight `[out, in]` (float32) of the layer at `path` as the model's files hold it, whatever it
    is stored in here; it raises Mistake where the files do not tell.
    """

    keys_and_values: Callable[[Sequence[int]], Tensor]
    whole: Callable[[str], Tensor]

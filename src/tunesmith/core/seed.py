"""One seed for a run, and as many as wanted that follow from it."""

from __future__ import annotations

import hashlib
import random
import sys

_LARGEST = 2**32


def seed_everything(seed: int) -> None:
    """Seed `random`, and numpy and torch (CPU and GPU) where they are already imported.

    Nothing is imported for it, so call it after the imports of what is to be repeated. Raises ValueError below 0 or
    from 2**32 on, which numpy cannot take.
    """
    if not 0 <= seed < _LARGEST:
        raise ValueError(f"a seed lies in 0 .. {_LARGEST - 1}, got {seed}")
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def derive(seed: int, *names: str | int) -> int:
    """A seed of its own for a part of the run, e.g. ``derive(seed, "shots", fold)``, in 0 .. 2**32 - 1.

    Parts then draw independently: one more random number drawn for the shots does not move the initial weights. The
    value is the same on every machine and in every process (Python's own `hash` of a text is not).
    """
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:4], "big")

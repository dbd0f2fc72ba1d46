"""Looking at the data before a method is attached: what a method may ask, and rows of a layer written short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Look(Protocol):
    """A look at some of the training rows with the plain base; whoever trains hands it to a method's `survey`.

    `seed` is for what the method draws itself.
    """

    seed: int

    def gradients(self, names: Sequence[str], note: Callable[[str, Tensor], None], rows: int) -> None:
        """Call ``note(name, gradient)`` for each of the parameters `names` on each of `rows` rows in turn.

        The gradient is that of a row's loss (nats, summed over its targets), in the parameter's own shape; it is gone
        afterwards, so that all parameters' gradients never lie in memory together.
        """

    def features(self, places: Sequence[str], rows: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """What leaves the modules at `places`, `[rows, hidden]` each: mean over a prompt; and the rows' answers."""


def written(numbers: Iterable[int]) -> str:
    """Whole numbers as people write pages: ``0-3,7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def read(text: str) -> list[int]:
    """What `written` wrote, as numbers again. Raises ValueError where it is something else."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found

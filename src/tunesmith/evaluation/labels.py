"""Names beside dots, placed so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_LETTER, _HEIGHT = 7.3, 14.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, y growing downward."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float, x_end: float, y_end: float, margin: float) -> Box:
        """What a line from one point to another takes up, with `margin` pixels on each side."""
        return cls(min(x, x_end) - margin, min(y, y_end) - margin, max(x, x_end) + margin, max(y, y_end) + margin)

    def overlap(self, other: Box) -> float:
        """The area that both cover, in square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)

    @property
    def area(self) -> float:
        """In square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place: `x`, `y` is the end of its baseline that `anchor` names."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    strong: bool

    @property
    def box(self) -> Box:
        """About the room the text takes; letters are counted, since no font is at hand to measure."""
        width = _LETTER * len(self.text) * (1.06 if self.strong else 1.0)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return Box(left, self.y - _HEIGHT + 3, left + width, self.y + 3)


def place(dots: Iterable[tuple[str, float, float, bool]], taken: Sequence[Box], inside: Box) -> list[Label]:
    """Put each name ``(text, x, y, strong)`` beside its dot, where it covers least of `taken` and of earlier names.

    Beside comes before above and below; outside of `inside` counts as covered.
    """
    placed: list[Label] = []
    for text, x, y, strong in dots:
        around = [*taken, *(label.box for label in placed)]
        placed.append(min(_candidates(text, x, y, strong), key=lambda label: _covered(label.box, around, inside)))
    return placed


def _candidates(text: str, x: float, y: float, strong: bool) -> list[Label]:
    return [
        Label(text, x + 12, y + 4, "start", strong),
        Label(text, x - 12, y + 4, "end", strong),
        *(Label(text, x + 10, y + shift, "start", strong) for shift in (-12, 20)),
        *(Label(text, x - 10, y + shift, "end", strong) for shift in (-12, 20)),
        *(Label(text, x, y + shift, "middle", strong) for shift in (-14, 24)),
        *(Label(text, x + 10, y + shift, "start", strong) for shift in (-28, 36)),
        *(Label(text, x - 10, y + shift, "end", strong) for shift in (-28, 36)),
    ]


def _covered(box: Box, around: Iterable[Box], inside: Box) -> float:
    # Half a name outside the picture is worse than half a name over a line.
    return sum(box.overlap(other) for other in around) + 4 * (box.area - box.overlap(inside))

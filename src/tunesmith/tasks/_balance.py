"""Unequal classes: how much a training row counts, and how often it is taken, so that rare labels are learned too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.core.errors import Mistake, nearest

Classes = tuple[str, ...]
ClassWeights = Annotated[
    Literal["none", "balanced"] | dict[str, float],
    Field(description="how much rows of each label count in the loss: balanced (rare ones more), or {label: weight}"),
]
Sampling = Annotated[
    Literal["natural", "balanced"],
    Field(description="balanced takes the rows of rare labels several times an epoch, as often as the commonest"),
]


def counts(rows: Sequence[Classes]) -> dict[str, int]:
    """How many rows have each class, the commonest first."""
    return dict(Counter(name for classes in rows for name in classes).most_common())


def class_weights(rows: Sequence[Classes], asked: str | Mapping[str, float]) -> dict[str, float]:
    """The weight of each class; ``balanced`` is scikit-learn's ``n / (k n_c)``, n being all marks of k classes.

    King & Zeng 2001, "Logistic Regression in Rare Events Data". Raises Mistake for a weight of a class that no row has,
    and for one that is not above 0.
    """
    known = counts(rows)
    if isinstance(asked, Mapping):
        for name, weight in asked.items():
            if name not in known:
                raise Mistake(f"class_weights: no training row has the label '{name}'; {nearest(name, known)}")
            if weight <= 0:
                raise Mistake(
                    f"class_weights: got {weight:g} for {name}; expected a number above 0; leave its rows out"
                )
        return {name: asked.get(name, 1.0) for name in known}
    if asked == "none":
        return dict.fromkeys(known, 1.0)
    return {name: sum(known.values()) / (len(known) * count) for name, count in known.items()}


def row_weights(rows: Sequence[Classes], asked: str | Mapping[str, float]) -> list[float]:
    """How much each row counts: the weight of its class, or the mean over its classes where it has several."""
    weight = class_weights(rows, asked)
    return [sum(weight[name] for name in classes) / len(classes) for classes in rows]


def repeats(rows: Sequence[Classes]) -> list[int]:
    """How often each row is taken, at least once, so that every class comes as often as the commonest.

    A row of several classes goes by the rarest of them (Gupta et al. 2019, arXiv:1908.03195, section 5: the repeat
    factor of an image is the largest of its categories'), so that there the classes come out nearly equal only.
    """
    known, seen = counts(rows), Counter[str]()
    most, times = max(known.values(), default=0), list[int]()
    for classes in rows:
        rarest = min(classes, key=lambda name: (known[name], name))
        place, count = seen[rarest], known[rarest]
        times.append((place + 1) * most // count - place * most // count)
        seen[rarest] += 1
    return times

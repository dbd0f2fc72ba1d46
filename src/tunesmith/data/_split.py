"""Train, validation and test by what a row says: adding rows never moves a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Record
from tunesmith.data._content import folded, question

Some = TypeVar("Some", bound=Record)


class Splits(NamedTuple, Generic[Some]):
    """The rows of each split, in the order in which they came."""

    train: tuple[Some, ...]
    validation: tuple[Some, ...]
    test: tuple[Some, ...]


def split(records: Sequence[Some], validation: float = 0.0, test: float = 0.0, *, salt: str = "") -> Splits[Some]:
    """Put each row on its side by the hash of what it asks.

    The place of a row depends on nothing but its own question (case and white space aside) and `salt`: rows added or
    taken away move no other, rows that ask the same thing stand on the same side, and a larger `validation` leaves the
    test split as it is. So the shares are met on average, not to the row. Keep `salt` the same for the life of a
    project: another one mixes old test rows into the training rows.

    Raises Mistake when a share is not one, or a split that was asked for stays empty.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise Mistake(f"{name}: got {share:g}; expected a share of the rows between 0 and 1, or a file")
    if validation + test >= 1:
        raise Mistake(f"validation {validation:g} and test {test:g} leave no rows to train on; lower one of them")
    parts: dict[str, list[Some]] = {"train": [], "validation": [], "test": []}
    for record in records:
        place = position(record, salt)
        side = "test" if place < test else "validation" if place < test + validation else "train"
        parts[side].append(record)
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    for name, share in shares.items():
        if share > 0 and not parts[name]:
            got = f"{len(records):,} rows and a share of {share:g}"
            raise Mistake(f"{name}: got {got}, which comes to none; expected one at least; add rows, or give a file")
    return Splits(*(tuple(parts[name]) for name in shares))


def position(record: Record, salt: str = "") -> float:
    """Where a row stands between 0 and 1, evenly spread over all rows that ask different things."""
    digest = hashlib.sha256(f"{salt}\0{folded(question(record))}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)

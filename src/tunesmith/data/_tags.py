"""Tags of named entities in one scheme, BIO, whichever they were written in."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data._row import BadField

_PREFIX = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}


def to_bio(tags: Sequence[str], column: str) -> tuple[str, ...]:
    """BIO from BIO, IOB1 (I- begins an entity), BIOES or BILOU.

    An entity begins at every B, S or U, and at an I, E or L that does not continue one of its kind. Raises BadField on
    a tag of no scheme, which most often means the wrong column.
    """
    result, running = [], ""
    for tag in tags:
        if tag == "O":
            result.append(tag)
            running = ""
            continue
        prefix, _, kind = tag.partition("-")
        if prefix not in _PREFIX or not kind:
            raise BadField(column, f"tag '{tag}' is of no scheme; expected O, B-kind or I-kind")
        begins = _PREFIX[prefix] == "B" or kind != running
        result.append(f"{'B' if begins else 'I'}-{kind}")
        # After the last tag of an entity, nothing continues it.
        running = "" if prefix in "ESLU" else kind
    return tuple(result)

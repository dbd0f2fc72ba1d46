"""Reading entities out of BIO tags, as conlleval and seqeval do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Span = tuple[str, int, int]


def spans(tags: Sequence[str]) -> Iterator[Span]:
    """Each entity as (type, first token, one past the last), in order.

    An ``I-`` that continues nothing starts an entity, and a change of type does too. BIOES tags are read as well.
    """
    kind, first, ended = "", 0, True
    for place, tag in enumerate((*tags, "O")):
        prefix, _, here = tag.partition("-")
        if kind and (prefix in ("O", "B", "S") or ended or here != kind):
            yield kind, first, place
            kind = ""
        if not kind and prefix != "O":
            kind, first = here or "_", place
        ended = prefix in ("E", "S")

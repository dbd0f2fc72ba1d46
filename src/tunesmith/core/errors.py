"""What went wrong, in words a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Mistake(Exception):
    """Something a person can put right: ends in one line and exit code 2, never in a traceback.

    The message says what was got, what was expected and what to type, in that order. Anything else that is raised
    is a bug of ours and keeps its traceback.
    """


class Mistakes(Mistake):
    """Several mistakes found in one reading of a file, told at once, one a line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was probably meant to be, "" when there is none; case, `-` and `_` do not count."""
    folded = {_folded(name): name for name in sorted(set(known), reverse=True)}
    close = difflib.get_close_matches(_folded(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word `word` was probably meant to be, or list what there is.

    Returns a clause for the end of a message: ``did you mean 'lora'?`` or ``known: full, lora``.
    """
    known = sorted(set(known))
    close = closest(word, known)
    return f"did you mean '{close}'?" if close else f"known: {', '.join(known)}"


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")

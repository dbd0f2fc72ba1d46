"""Which languages texts are in, as far as they are long enough to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LOOKED_AT = 2000
"""So many texts, evenly spread, are looked at: the shares are then known to about two points."""

_LETTERS, _ENOUGH, _SURE = 40, 300, 0.95
_NONE = {"zxx", "und"}  # the classifier's words for what is no language


def languages(texts: Sequence[str]) -> Counter[str]:
    """How many texts are surely in each language (ISO 639-1).

    Texts with under 40 bytes of letters, and those the classifier is not 95 % sure of, are not counted: "hello" alone
    is taken for Breton. Read the numbers against their sum, not against the number of texts.
    """
    identifier = _identifier()
    step = max(1, len(texts) // LOOKED_AT)
    found: Counter[str] = Counter()
    for text in texts[::step]:
        beginning = text[:_ENOUGH]
        if len("".join(filter(str.isalpha, beginning)).encode()) >= _LETTERS:
            language, probability = identifier.classify(beginning)
            found[language] += probability >= _SURE and language not in _NONE
    return +found


@cache
def _identifier() -> LanguageIdentifier:
    """The classifier, with probabilities; unpacking its numbers takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

"""ROUGE through Google's rouge-score, all four kinds at once, with words that are not English kept whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, cast

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array, weighted

_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")


class _Words:
    """rouge-score's own tokens for plain ASCII; other letters, which it would drop, make words too."""

    def __init__(self) -> None:
        from nltk.stem import porter  # type: ignore[import-untyped]  # comes with rouge-score, without types

        self._stem = lru_cache(100_000)(porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        return [self._stem(word) if len(word) > 3 else word for word in _WORD.findall(text.lower())]


@cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(_KINDS, tokenizer=_Words())


@lru_cache(10_000)
def _all(prediction: str, references: tuple[str, ...]) -> dict[str, float]:
    found = _scorer().score_multi([_by_sentence(text) for text in references], _by_sentence(prediction))
    return {kind: score.fmeasure for kind, score in found.items()}


def _by_sentence(text: str) -> str:
    """One sentence a line, which is how ROUGE-Lsum wants its texts; the other kinds do not see line ends."""
    return "\n".join(part for part in _SENTENCE_END.split(text) if part.strip())


def statistics(kind: str, scores: Sequence[Score]) -> Array:
    """F-measure of each row against its best reference, and the row's weight. `[rows, 2]`"""
    texts = ((cast(str, score.prediction), cast(tuple[str, ...], score.references)) for score in scores)
    return weighted((_all(*text)[kind] for text in texts), scores)

"""The signature that sacrebleu puts beside its scores, so that two numbers from two papers can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.core.records import Score


def signature_of(metric: Any, scores: Sequence[Score]) -> str:
    """The signature of a metric of sacrebleu's; it knows the number of references only once it has seen some."""
    counts = sorted({len(score.references) for score in scores})
    columns = [["a" if count > place else None for count in counts] for place in range(counts[-1])]
    metric.corpus_score(["a"] * len(counts), columns)
    return str(metric.get_signature())

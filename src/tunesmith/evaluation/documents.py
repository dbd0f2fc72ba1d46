"""How expected running text is to a model, document by document, and how well it tells what is hidden of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

from tunesmith.core.config import Chosen
from tunesmith.core.records import Encoded, Score
from tunesmith.core.seed import derive
from tunesmith.models.load import context_length
from tunesmith.prompts.documents import documents
from tunesmith.prompts.passages import passages

if TYPE_CHECKING:
    from tunesmith.engine.prepare import Prepared
    from tunesmith.prompts.reading import Reader
    from tunesmith.prompts.render import Template

LONGEST = 1024
"""Tokens of a document that are read together; what a model gains from more is little, and memory grows."""


def document_scores(
    prepared: Prepared,
    template: Template,
    texts: Sequence[str],
    *,
    objective: Chosen | None = None,
    prefix: Sequence[int] = (),
    on_rows: Callable[[float], object] = lambda n: None,
) -> tuple[Score, ...]:
    """Total nats of each document, weighing as many tokens: all of them, or those that the objective hides.

    What is hidden is the same every time, so that a model can be compared with what it was before.
    """
    from tunesmith.engine.scoring import sequence_logprobs

    length = min(LONGEST, context_length(prepared.model.config) - len(prefix))
    pieces = documents(template, texts, max_length=length)
    rows = [_shown(row, objective, place) for place, row in enumerate(chain.from_iterable(pieces))]
    sums, counts = sequence_logprobs(prepared, rows, prefix=prefix)
    on_rows(len(texts))
    places = pairwise(accumulate(map(len, pieces), initial=0))
    return tuple(Score(-float(sums[a:b].sum()), weight=float(counts[a:b].sum())) for a, b in places)


def passage_scores(
    prepared: Prepared,
    reader: Reader,
    texts: Sequence[str],
    objective: Chosen,
    *,
    prefix: Sequence[int] = (),
    on_rows: Callable[[float], object] = lambda n: None,
) -> tuple[Score, ...]:
    """What an encoder tells of each document, of those that have rows: total nats, weighing as many hidden tokens.

    Of pairs of pieces the share that is told right, weighing as many. What is hidden is the same every time.
    """
    from tunesmith.engine.scoring import sequence_logprobs

    pieces = passages(reader, texts, max_length=reader.window - len(prefix))
    rows = [_shown(row, objective, place) for place, row in enumerate(chain.from_iterable(pieces))]
    sums, counts = sequence_logprobs(prepared, rows, prefix=prefix)
    on_rows(len(texts))
    places = [(a, b) for a, b in pairwise(accumulate(map(len, pieces), initial=0)) if a < b]
    if getattr(objective.module, "METRIC", "") == "accuracy":
        right = (sums > -math.log(2)).double()  # the likelier of two labels has more than half
        return tuple(Score(float(right[a:b].mean()), weight=b - a) for a, b in places)
    return tuple(Score(-float(sums[a:b].sum()), weight=float(counts[a:b].sum())) for a, b in places)


def _shown(row: Encoded, objective: Chosen | None, place: int) -> Encoded:
    if objective is None or not hasattr(objective.module, "rows"):
        return row
    shown: Encoded = objective.module.rows(row, objective.config, derive(0, "measured", place))
    return shown

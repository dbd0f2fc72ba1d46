"""The score of one output: its text beside the references, and the metric of this row alone."""

from __future__ import annotations

import dataclasses

from tunesmith.core.records import Score
from tunesmith.core.rooms import choice

Judged = str | tuple[str, ...]


def judged(metric: str, prediction: Judged, references: tuple[Judged, ...]) -> Score:
    """A Score whose `value` is `metric` over this row alone; the metric, not a mean of values, puts rows together."""
    module = choice("metrics", metric)
    score = Score(0.0, prediction=prediction, references=references)
    return dataclasses.replace(score, value=float(module.aggregate(module.statistics([score]))[0]))

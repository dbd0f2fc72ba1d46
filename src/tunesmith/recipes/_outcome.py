"""One rung's outcome: what climb.json, the store, the report and the terminal say of it, from one place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen
from tunesmith.core.files import atomic_write
from tunesmith.core.records import Score, Text, read_jsonl
from tunesmith.evaluation.answers import Answers

EXAMPLES = 8
"""Rows whose outputs are shown side by side."""
TEXT_SHOWN = 200
"""Characters of a document that are shown."""


@dataclass(slots=True)
class Outcome:
    """A rung tried, skipped or interrupted; the fields are those of climb.json, units in their names."""

    name: str
    status: str = "finished"
    reason: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    caution: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    train_seconds: float = 0.0
    seconds: float = 0.0
    money: float | None = None
    peak_memory_mb: float | None = None
    trainable_parameters: int = 0
    artifact_bytes: int = 0
    prompt_tokens_per_query: float | None = None
    seconds_per_query: float | None = None
    forgetting_kl: float | None = None
    forgetting_bits_per_byte: float | None = None
    forgetting_drift: float | None = None
    chosen: bool = False
    versus_best: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    race: list[dict[str, Any]] = field(default_factory=list)
    confusion: dict[str, Any] | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    receipt: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the rung was measured."""
        return self.status == "finished"

    def measured(self, answers: Answers, records: Sequence[Any], task: Chosen) -> None:
        """Take over what the validation rows showed."""
        main, labels = answers.measured, task.module.candidates(task.config)
        self.metric, self.value, self.low, self.high = main.metric, main.value, main.low, main.high
        self.n, self.caution = main.n, main.caution
        self.metrics = {name: asdict(one) for name, one in answers.metrics.items()}
        self.prompt_tokens_per_query = round(answers.prompt_tokens, 1)
        self.seconds_per_query = answers.seconds_per_query
        self.confusion = confusion(answers.scores, labels)
        self.examples = [
            {
                "input": _question(record),
                "reference": task.module.answer(record, task.config),
                "output": output,
                "right": score.value >= 1.0 if labels else None,
            }
            for record, output, score in zip(records[:EXAMPLES], answers.outputs, answers.scores, strict=False)
        ]

    def line(self) -> str:
        """The quality in a few words, for the terminal."""
        return f"{self.metric.replace('_', ' ')} {self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.n})"

    def save(self, folder: Path, scores: Sequence[Score]) -> None:
        """Write `outcome.json` and the rows' scores, so that a later climb can go on and compare row by row."""
        rows = "".join(json.dumps(asdict(score), ensure_ascii=False) + "\n" for score in scores)
        atomic_write(folder / "scores.jsonl", rows)
        atomic_write(folder / "outcome.json", json.dumps(asdict(self), ensure_ascii=False, indent=1))


def load(folder: Path) -> tuple[Outcome, list[Score]] | None:
    """An outcome saved earlier with its rows' scores, None when the rung was not finished."""
    if not (folder / "outcome.json").exists():
        return None
    outcome = Outcome(**json.loads((folder / "outcome.json").read_text(encoding="utf-8")))
    return outcome, [_score(row) for row in read_jsonl(folder / "scores.jsonl")]


def confusion(scores: Sequence[Score], labels: Sequence[str]) -> dict[str, Any] | None:
    """How often each label (row) was answered with each (column); None where answers are no labels or too many."""
    if not labels or len(labels) > 20 or not all(isinstance(score.prediction, str) for score in scores):
        return None
    counts = [[0] * len(labels) for _ in labels]
    for score in scores:
        if score.prediction in labels and score.references and score.references[0] in labels:
            counts[labels.index(score.references[0])][labels.index(score.prediction)] += 1
    return {"labels": list(labels), "counts": counts}


def _score(row: dict[str, Any]) -> Score:
    """A score as it was: JSON has lists where there were tuples."""

    def back(value: Any) -> Any:
        return tuple(back(item) for item in value) if isinstance(value, list) else value

    return Score(row["value"], row["weight"], back(row["prediction"]), back(row["references"]))


def _question(record: Any) -> str:
    if getattr(record, "messages", None):
        return "\n".join(f"{turn.role}: {turn.content}" for turn in record.messages[:-1])
    if isinstance(record, Text):
        return record.text[:TEXT_SHOWN]
    parts = (getattr(record, "context", ""), record.input or " ".join(getattr(record, "tokens", ())))
    return "\n\n".join(part for part in parts if part)

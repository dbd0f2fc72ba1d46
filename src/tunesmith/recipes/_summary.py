"""What a climb leaves: climb.json and the page after every rung, and at the end the winner, proven on the test rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.config import Forgetting, Project
from tunesmith.core.files import atomic_folder
from tunesmith.core.machine import inspect
from tunesmith.core.rooms import choice
from tunesmith.evaluation import amounts
from tunesmith.evaluation.answers import Answers
from tunesmith.evaluation.report import write_report
from tunesmith.methods._strength import has_strength
from tunesmith.recipes._artifacts import laid_on, write_json
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._record import Record
from tunesmith.recipes._rules import forgets_too_much
from tunesmith.recipes._rungs import Bench
from tunesmith.recipes._work import Examples

PROOF_SHARE = 0.15
"""Share of a climb's time that proving the winner may take."""
SECONDS_A_TEST_ROW = 2.5
"""Times what a validation row takes: asked twice, by the winner and without examples, and something to spare."""
FEWEST_ROWS = 60
"""Test rows that a winner is proven on however little time is left."""


class Summary:
    """Gathers a climb and writes it down as it grows, so that an interrupted one leaves what it had."""

    def __init__(self, project: Project, examples: Examples, folder: Path, begun: float) -> None:
        self.project, self.examples, self.folder, self.begun = project, examples, folder, begun
        self.outcomes: list[Outcome] = []
        self.ending: dict[str, Any] = {}

    def seconds_left(self) -> float:
        """What is left of the budget."""
        return self.project.budget.minutes * 60 - (time.monotonic() - self.begun)

    def add(self, outcome: Outcome) -> None:
        """A rung is done: write the climb so far."""
        self.outcomes.append(outcome)
        self.write()

    def skip(self, name: str, reason: str, status: str = "skipped") -> None:
        """A rung was not tried, or not to its end."""
        self.add(Outcome(name, status=status, reason=reason))

    def choose(self, name: str, versus_best: Mapping[str, Mapping[str, Any]]) -> None:
        """Mark the chosen rung and copy what it left to `artifact/`."""
        for outcome in self.outcomes:
            outcome.chosen = outcome.name == name
            outcome.versus_best = dict(versus_best.get(outcome.name, {}))
        with atomic_folder(self.folder / "artifact") as new:
            shutil.copytree(self.folder / "rungs" / name / "artifact", new, dirs_exist_ok=True)

    def prove(self, bench: Bench, record: Record, best: Outcome) -> None:
        """Measure the winner, and asking without examples, once on test rows that nothing was chosen by."""
        chosen = next(outcome for outcome in self.outcomes if outcome.chosen)
        seconds = min(self.seconds_left(), PROOF_SHARE * 60 * self.project.budget.minutes)
        affordable = int(seconds / (SECONDS_A_TEST_ROW * max(bench.seconds_per_query, 1e-6)))
        rows = self.examples.test[: max(affordable, FEWEST_ROWS)]
        if rows:
            if bench.model.reader is None:
                plain = answers = bench.answerer.answer(rows, description="zero_shot on test")
                self.ending["test_baseline"] = _told(plain)
                record.measured("test", plain.metrics, {"rung": "zero_shot"})
            if chosen.name != "zero_shot":
                with laid_on(bench.model, self.folder / "artifact", bench.project) as (answerer, prompting):
                    answers = answerer.answer(rows, prompting, f"{chosen.name} on test")
            self.ending["test"] = _told(answers)
            record.measured("test", answers.metrics, {"rung": chosen.name})
        record.left(chosen.name, self.folder / "artifact", bench.model.loaded.name)
        record.peak_memory_mb = max(o.peak_memory_mb or 0.0 for o in self.outcomes if o.finished)
        self.ending["verdict"] = _verdict(chosen, self.ending, best, self.project.forgetting)
        self.ending["verdict"] += _remedy(chosen, self.project.forgetting, self.folder)
        self.ending["command"] = f'tunesmith generate --artifact {self.folder} "your text"'

    def write(self) -> dict[str, Any]:
        """Write climb.json and report.html; returns what the former holds."""
        told = self.as_dict()
        write_json(self.folder / "climb.json", told)
        write_report(self.folder, told)
        return told

    def as_dict(self) -> dict[str, Any]:
        """What climb.json holds."""
        finished = [outcome for outcome in self.outcomes if outcome.finished]
        skipped = [outcome for outcome in self.outcomes if outcome.status == "skipped"]
        return {
            "name": self.folder.name,
            "verdict": "",
            "command": "",
            "test": None,
            "test_baseline": None,
            "task": self.project.task.as_dict(),
            "metric": finished[0].metric if finished else "",
            "model": self.project.model,
            "split": "validation",
            "target": self.project.target,
            "max_kl": self.project.forgetting.max_kl,
            "budget": self.project.budget.model_dump(mode="json"),
            "stopped": skipped[-1].reason if skipped else "",
            "seconds": time.monotonic() - self.begun,
            "machine": inspect(torch=True).as_dict(),
            "data": {"version": self.examples.version, **self.examples.counts(), "notes": list(self.examples.notes)},
            "receipt": next((o.receipt for o in reversed(finished) if o.receipt), {}),
            "rungs": [asdict(outcome) for outcome in self.outcomes],
            **self.ending,
        }


def _told(answers: Answers) -> dict[str, Any]:
    main = answers.measured
    metrics = {name: asdict(one) for name, one in answers.metrics.items()}
    return {**asdict(main), "metrics": metrics, "seconds_per_query": answers.seconds_per_query}


def _verdict(chosen: Outcome, ending: Mapping[str, Any], best: Outcome, asked: Forgetting) -> str:
    """The climb in one sentence: what to use, how good it is, what it costs, what it forgot."""
    shown = ending.get("test") or {**asdict(chosen), "metric": chosen.metric}
    split = "test" if ending.get("test") else "validation"
    name, span = shown["metric"].replace("_", " "), f"{shown['low']:.3f} to {shown['high']:.3f}"
    quality = f"{name} {shown['value']:.3f} ({span}, {shown['n']} {split} rows)"
    parts = [f"Use {chosen.name}: {quality}"]
    plain = ending.get("test_baseline")
    if plain and chosen.name != "zero_shot":
        parts.append(f"where asking without examples gets {plain['value']:.3f}")
    made = f"made in {amounts.duration(chosen.seconds)}"
    parts.append(
        f"{made} with {amounts.memory(chosen.peak_memory_mb)}, {amounts.duration(chosen.seconds_per_query)} a query"
    )
    if best.name != chosen.name:
        forgets = forgets_too_much(best, asked) and not forgets_too_much(chosen, asked)
        parts.append(
            f"no worse beyond noise than {best.name}, which {'forgets more than asked' if forgets else 'costs more'}"
        )
    return ", ".join(parts) + "."


def _remedy(chosen: Outcome, asked: Forgetting, folder: Path) -> str:
    """What to type where the winner forgets more than the task file asks; "" where it does not."""
    if not (why := forgets_too_much(chosen, asked)):
        return ""
    if not has_strength(choice("methods", chosen.name)):
        return f" It forgets more than asked: {why}; give forgetting.kl in the task file, or climb other rungs."
    bound = f" --max-kl {asked.max_kl:g}" if asked.max_kl is not None else ""
    return f" It forgets more than asked: {why}; to make it weaker, type: tunesmith scale {folder}{bound}"

"""What a run remembers from step to step and writes down: metrics, the best weights, checkpoints to go on from."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write, disk_mistakes
from tunesmith.core.progress import say
from tunesmith.engine import checkpoints
from tunesmith.engine.aside import Aside
from tunesmith.engine.loop import Guard, Step

SECONDS_BETWEEN_CHECKPOINTS = 120.0
"""What is lost at most when the machine dies, unless `save_steps` says otherwise."""
_REMEDY = "set output_dir to a place with room"


@dataclass(slots=True)
class Fit:
    """What a run did. `curve` has a point a validation: step, training loss since the last, validation loss (nats).

    Of its `seconds` so many went into validating.
    """

    steps: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    tokens: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    stopped: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    receipt: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gate measured, number by name, and why that is too much ("" while it is not)."""

    measured: dict[str, float]
    outside: str = ""


class Journal:
    """The account of one run, in `folder` where there is one: `metrics.jsonl`, a line a step, and `checkpoints/`.

    `settings` are what the run was told beside its rows; a run is only gone on with under the same.
    """

    def __init__(
        self, folder: Path | None, model: nn.Module, fit: Fit, settings: dict[str, Any], best: Aside | None = None
    ) -> None:
        self.folder, self.model, self.fit, self.settings = folder, model, fit, settings
        self.best = Aside() if best is None else best
        self.losses: list[float] = []
        self.since_best = 0
        self.saved = time.monotonic()

    def resume(self, guard: Guard) -> int:
        """Go on from the latest checkpoint in the folder; returns the step to go on after.

        Raises Mistake when it is one of another run, before anything is changed.
        """
        if self.folder is None:
            return 0
        with disk_mistakes(self.folder, _REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoints.latest(self.folder / "checkpoints")
        metrics = self.folder / "metrics.jsonl"
        if found is None:
            metrics.unlink(missing_ok=True)
            return 0
        kept = checkpoints.state(found)
        self._refuse_another(kept)
        step = checkpoints.load(found, self.model, guard, self.best)
        best_loss = math.inf if kept["fit"]["best_loss"] is None else kept["fit"]["best_loss"]
        self.fit = Fit(**{**kept["fit"], "best_loss": best_loss})
        self.losses, self.since_best = kept["recent"], kept["since_best"]
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        atomic_write(metrics, "".join(line + "\n" for line in lines if _step_of(line) <= step), remedy=_REMEDY)
        say(f"{self.folder}: going on after step {step}")
        return step

    def _refuse_another(self, kept: dict[str, Any]) -> None:
        """Raise Mistake, naming what differs, when the checkpoint's run is not this one."""
        apart = {"memory_estimate_mb", "pack_tokens"}  # these follow from what the machine has free at the moment
        ours = {**self.fit.receipt, **self.settings}
        theirs = {**kept["fit"]["receipt"], **kept["settings"]}
        for key in ours:
            if key not in apart and ours[key] != theirs.get(key):
                name = key.removesuffix("_sha256")
                values = "" if name != key else f": {theirs.get(key)} there, {ours[key]} now"
                raise Mistake(
                    f"{self.folder}: holds a run with other {name}{values}; "
                    "choose another output_dir, or remove it to begin anew"
                )

    def note(self, step: Step) -> None:
        """Write a step down."""
        self.fit.steps, self.fit.tokens = step.number, self.fit.tokens + step.tokens
        if step.event:
            self.fit.events.append(f"step {step.number}: {step.event}")
            say(self.fit.events[-1])
        else:
            self.losses.append(step.loss)
        line = {
            "step": step.number,
            "loss": step.loss,
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
            "tokens": step.tokens,
            **step.metrics,
        }
        self._write({**line, "event": step.event} if step.event else line)

    def validated(self, step: int, loss: float | None, gate: Reading | None = None) -> None:
        """Write down a validation loss (nats a target) and what the gate measured, and keep the weights when best.

        Weights outside the gate are never the best, and end the run; where there is no loss the latest inside are.
        """
        recent, self.losses = sum(self.losses) / max(1, len(self.losses)), []
        measured = gate.measured if gate else {}
        lost = {} if loss is None else {"validation": loss}
        self.fit.curve.append({"step": step, "loss": recent, **lost, **measured})
        self._write({"step": step, **{f"{name}_loss": value for name, value in lost.items()}, **measured})
        if gate is not None and gate.outside:
            self.fit.stopped = f"step {step}: {gate.outside}: back to the weights of step {self.fit.best_step}"
            return
        self.since_best += 1
        if loss is None or loss < self.fit.best_loss:
            self.fit.best_loss = math.inf if loss is None else loss
            self.fit.best_step, self.since_best = step, 0
            self.remember_best()

    def nearer(self, share: float, loss: float | None) -> None:
        """Keep the present weights, `share` of the way from the best inside a gate to those outside, if better.

        Where they are not, and nothing was inside but the start, say what to type.
        """
        if share and (loss is None or loss < self.fit.best_loss):
            self.fit.best_loss = math.inf if loss is None else loss
            self.fit.stopped += f", and {share:g} of the way on from there"
            self.remember_best()
        elif not self.fit.best_step:
            self.fit.stopped += ", the start: validate more often (eval_steps), or lower learning_rate"
        say(self.fit.stopped)

    def remember_best(self) -> None:
        """Keep the present weights as those that the run leaves in place."""
        self.best.put(dict(checkpoints.trained(self.model)))

    def keep(self, step: int, guard: Guard, save_steps: int | None) -> None:
        """Make a checkpoint when it is time for one: every `save_steps`, else every two minutes.

        The guard keeps the same state, so that a resumed run has the same one to go back to.
        """
        waited = save_steps is not None or time.monotonic() - self.saved >= SECONDS_BETWEEN_CHECKPOINTS
        if waited and step % (save_steps or guard.keep_every) == 0:
            guard.keep(step)
            self.checkpoint(step, guard)

    def checkpoint(self, step: int, guard: Guard) -> None:
        """Keep everything that is needed to go on after `step`."""
        if self.folder is None:
            return
        fit = asdict(self.fit)
        fit["best_loss"] = self.fit.best_loss if math.isfinite(self.fit.best_loss) else None
        told = {"fit": fit, "settings": self.settings, "recent": self.losses, "since_best": self.since_best}
        checkpoints.save(self.folder / "checkpoints", step, self.model, guard, told, self.best)
        self.saved = time.monotonic()

    def restore_best(self) -> None:
        """Put the best validated weights into the model; the last ones stay when nothing was validated."""
        trained = dict(checkpoints.trained(self.model))
        for name, best in self.best.items():
            trained[name].data.copy_(best)

    def _write(self, line: dict[str, Any]) -> None:
        """Add a line to the metrics; what is no number becomes null, since JSON has no NaN."""
        if self.folder is None:
            return
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in line.items()
        }
        metrics = self.folder / "metrics.jsonl"
        with disk_mistakes(metrics, _REMEDY), metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")


def _step_of(line: str) -> float:
    """The step a line of the metrics tells of; infinite when the process died before the line was whole."""
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:
        return math.inf

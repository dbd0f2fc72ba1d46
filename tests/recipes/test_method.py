"""Methods that look at the data: once a run, kept beside it, and the same again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.engine.fit import Job
from tunesmith.engine.journal import Fit
from tunesmith.engine.loop import Step
from tunesmith.engine.survey import Look
from tunesmith.methods import _artifact
from tunesmith.recipes import _learn as recipe

ToyTask = Callable[..., dict[str, Any]]
IMPORTANT = {"name": "important", "share": 0.05, "survey_rows": 8}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The looks that were taken."""
    taken: list[str] = []

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def look(*given: Any) -> Any:
            taken.append(name)
            return real(*given)

        return look

    for name in ("gradients", "features"):
        monkeypatch.setattr(Look, name, counting(name, getattr(Look, name)))
    return taken


@pytest.mark.parametrize(("by", "how"), [("gradient", "gradients"), ("random_forest", "features")])
def test_what_was_found_is_trained_and_written_down(
    by: str, how: str, toy_task: ToyTask, looks: list[str], workplace: Path
) -> None:
    method = IMPORTANT | {"by": by, "survey_rows": 24}
    result = tunesmith.train(toy_task(method=method, max_steps=3, output_dir="runs/a"), evaluate=False)
    assert looks == [how]
    artifact = _artifact.describe(workplace / "runs/a/artifact")
    assert artifact.config.rows == result["config"]["rows"] != {}
    assert sum(artifact.config.importance.values()) == pytest.approx(1)
    assert 0 < result["trainable_parameters"] < 20_000
    page = (workplace / "runs/a/report.html").read_text(encoding="utf-8")
    assert "Where the task lies in the model" in page
    again = tunesmith.train(toy_task(method=method, max_steps=3, output_dir="runs/b"), evaluate=False)
    assert again["config"] == result["config"]


class Killed(BaseException):
    """Stands in for `kill -9`."""


def test_a_killed_run_does_not_look_again_and_goes_on_bit_for_bit(
    toy_task: ToyTask, looks: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"method": IMPORTANT, "max_steps": 8, "save_steps": 2}
    tunesmith.train(toy_task(**keys, output_dir="runs/whole"), evaluate=False)

    def stop(step: Step) -> None:
        if step.number == 5:
            raise Killed

    fit: Callable[..., Fit] = recipe.fit

    def killed(job: Job) -> Fit:
        return fit(job, stop)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "fit", killed)
        with pytest.raises(Killed):
            tunesmith.train(toy_task(**keys, output_dir="runs/broken"), evaluate=False)
    tunesmith.train(toy_task(**keys, output_dir="runs/broken"), evaluate=False)
    assert looks == ["gradients"] * 2
    for name in ("delta.safetensors", "tunesmith.json"):
        whole, broken = (workplace / f"runs/{run}/artifact/{name}" for run in ("whole", "broken"))
        assert whole.read_bytes() == broken.read_bytes()


def test_other_rows_or_settings_are_looked_at_anew(toy_task: ToyTask, looks: list[str], workplace: Path) -> None:
    keys = {"max_steps": 1, "output_dir": "runs/a"}
    tunesmith.train(toy_task(method=IMPORTANT, **keys), evaluate=False)
    (workplace / "runs/a/artifact").rename(workplace / "artifact")  # else the folder is another run's
    first = json.loads((workplace / "runs/a/survey.json").read_text())
    tunesmith.train(toy_task(method=IMPORTANT | {"share": 0.2}, **keys), evaluate=False)
    second = json.loads((workplace / "runs/a/survey.json").read_text())
    assert len(looks) == 2
    assert first["config"]["rows"] != second["config"]["rows"]


def test_a_rung_of_a_climb_looks_once_for_its_race_and_its_run(
    toy_task: ToyTask, looks: list[str], workplace: Path
) -> None:
    told = tunesmith.climb(
        toy_task(method=IMPORTANT, learning_rate=None, num_train_epochs=0.2),
        rungs=["zero_shot", "important"],
        minutes=5,
    )
    assert looks == ["gradients"]
    rung = next(one for one in told["rungs"] if one["name"] == "important")
    assert rung["status"] == "finished"
    assert rung["config"]["rows"]
    assert (workplace / "runs/toy/rungs/important/survey.json").exists()


@pytest.mark.parametrize("name", ["last_layers", "gradual_unfreezing", "important", "peft"])
def test_from_task_file_to_artifact_and_back(name: str, toy_task: ToyTask) -> None:
    method = {"name": name} | ({"survey_rows": 8, "share": 0.2} if name == "important" else {})
    result = tunesmith.train(toy_task(method=method, max_steps=12))
    assert result["value"] is not None
    assert result["forgetting_kl"] > 0
    again = tunesmith.evaluate(toy_task(method=method), artifact="runs/toy", split="validation")
    assert again["value"] == result["value"]

"""A sweep finds what learns, tells what it tried, goes on where it stopped, and refuses what it cannot search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.config import load_project, resolve
from tunesmith.core.errors import Mistake
from tunesmith.engine import pooling
from tunesmith.recipes import _study, _trial
from tunesmith.recipes._space import space, usual_values
from tunesmith.recipes.sweep import sweep

SEARCH = {"learning_rate": [1e-6, 3e-2], "method.r": [2, 4, 8]}


def _project(toy_task: Callable[..., dict[str, Any]], **keys: Any) -> Any:
    return resolve(toy_task(**{"max_steps": 6, "output_dir": "runs/sweep", "sweep": SEARCH, **keys}))


def test_it_finds_what_learns_and_leaves_a_task_file_to_run(toy_task: Any, workplace: Path) -> None:
    told = sweep(_project(toy_task), trials=4, minutes=5)
    trials = told["trials"]
    assert len(trials) == 4
    assert {trial["state"] for trial in trials} <= {"finished", "pruned"}
    assert all(trial["reason"].startswith("ended early") for trial in trials if trial["state"] == "pruned")
    assert all(1e-6 <= trial["params"]["learning_rate"] <= 3e-2 for trial in trials)
    assert {trial["params"]["method.r"] for trial in trials} <= {2, 4, 8}
    assert trials[0]["params"] == {"learning_rate": 1e-2, "method.r": 8}  # what the task file says comes first
    finished = [trial for trial in trials if trial["state"] == "finished"]
    (best,) = (trial for trial in trials if trial["chosen"])
    assert best["values"]["quality"] == min(trial["values"]["quality"] for trial in finished)
    chosen = load_project(workplace / "runs/sweep/best.yaml")
    assert chosen.learning_rate == best["params"]["learning_rate"]
    assert chosen.method.config.r == best["params"]["method.r"]
    assert chosen.output_dir == "runs/sweep/best"
    assert chosen.sweep == {}
    assert json.loads((workplace / "runs/sweep/sweep.json").read_text(encoding="utf-8")) == told
    page = (workplace / "runs/sweep/report.html").read_text(encoding="utf-8")
    assert page.count('<polyline class="trial') == 2 * len(trials)  # wide and narrow
    assert told["command"] in page


def test_it_goes_on_where_it_stopped_and_makes_no_trial_twice(toy_task: Any) -> None:
    first = sweep(_project(toy_task), trials=2, minutes=5)
    more = sweep(_project(toy_task), trials=3, minutes=5)
    assert more["trials"][:2] == first["trials"] or more["best"]["number"] == 2
    assert [trial["number"] for trial in more["trials"]] == [0, 1, 2]
    assert len({json.dumps(trial["params"]) for trial in more["trials"]}) == 3
    assert len(sweep(_project(toy_task), trials=3, minutes=5)["trials"]) == 3


def test_another_sweep_in_the_folder_is_refused(toy_task: Any) -> None:
    sweep(_project(toy_task), trials=1, minutes=5)
    with pytest.raises(Mistake, match=r"holds a sweep with other search.*choose another --output-dir"):
        sweep(_project(toy_task, sweep={"learning_rate": [1e-4, 1e-2]}), trials=2)
    with pytest.raises(Mistake, match="holds a sweep with other objectives"):
        sweep(_project(toy_task), trials=2, objectives=("quality", "seconds"))


def test_several_objectives_have_a_front(toy_task: Any) -> None:
    objectives = ("quality", "seconds", "forgetting")
    told = sweep(_project(toy_task), trials=3, minutes=5, objectives=objectives)
    assert all(set(trial["values"]) == set(objectives) for trial in told["trials"])
    assert {trial["state"] for trial in told["trials"]} == {"finished"}  # none is ended early
    front = [trial["values"] for trial in told["trials"] if trial["front"]]
    for trial in told["trials"]:
        beaten = any(all(one[name] < trial["values"][name] for name in objectives) for one in front)
        assert beaten is not trial["front"] or not trial["front"]
    assert any(trial["front"] for trial in told["trials"] if trial["chosen"])


def test_a_trial_that_is_worse_is_ended_early(toy_task: Any) -> None:
    """The rate of the task file comes first, and at the next ones nothing is learned."""
    told = sweep(_project(toy_task, sweep={"learning_rate": [1e-2, 1e-7, 2e-7]}), trials=3, minutes=5)
    first, *others = told["trials"]
    assert first["chosen"]
    later = [trial for trial in others if trial["params"] != first["params"]]
    again = [trial for trial in others if trial["params"] == first["params"]]
    assert all(trial["reason"] == "as trial 0, not trained again" for trial in again)
    assert all(trial["values"] == first["values"] for trial in again)
    assert later
    assert all(trial["state"] == "pruned" and trial["validations"] == 1 for trial in later)


@pytest.mark.parametrize("model", ["toy_folder", "toy_encoder_folder"])
def test_a_frozen_body_reads_the_rows_once_for_all_trials(
    toy_task: Any, model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, search = str(request.getfixturevalue(model)), {"learning_rate": [1e-3, 2e-2]}
    task = _project(toy_task, model=place, method="dense_head", sweep=search)
    sweep(task, trials=1, minutes=5)
    monkeypatch.setattr(pooling, "_all", lambda *_: pytest.fail("read again"))
    _, second = sweep(task, trials=2, minutes=5)["trials"]
    assert second["validations"]  # it was trained, not copied


def test_an_interrupted_trial_is_begun_anew(toy_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _trial.fit

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_trial, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(_project(toy_task), trials=1, minutes=5)
    monkeypatch.setattr(_trial, "fit", usual)
    first, again = sweep(_project(toy_task), trials=1, minutes=5)["trials"]
    assert first["state"] == "interrupted"
    assert again["state"] == "finished"
    assert again["params"] == first["params"]


def test_a_trial_whose_process_died_is_begun_anew(
    toy_task: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workplace / "study"
    folder.mkdir()
    study = _study.open_study(folder, {"data": "1"}, ("quality",), 0)
    dead = _study.ask(study)
    dead.suggest_float("learning_rate", 0.0, 1.0)
    monkeypatch.setattr(_study, "lives", lambda process: False)
    again = _study.ask(_study.open_study(folder, {"data": "1"}, ("quality",), 0))
    assert again.suggest_float("learning_rate", 0.0, 1.0) == dead.params["learning_rate"]
    assert _study.counted(study) == 1


def test_two_workers_share_one_study(workplace: Path) -> None:
    first, second = (_study.open_study(workplace, {"data": "1"}, ("quality",), 0) for _ in range(2))
    numbers = [_study.ask(study).number for study in (first, second, first)]
    assert numbers == [0, 1, 2]
    second.tell(1, 0.5)
    best = _study.best(first)
    assert best is not None
    assert best.number == 1


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"learning_rat": [1e-4, 1e-2]}, "learning_rat cannot be searched; did you mean 'learning_rate'"),
        ({"model": ["a", "b"]}, "model cannot be searched"),
        ({"method.rang": [1, 2]}, "method.rang cannot be searched"),
        ({"method.r": []}, "method.r has nothing to try"),
        ({"method.r": [0, 8]}, "method.r: got 0"),
        ({"optimizer": ["adamw", "adamm"]}, "got 'adamm'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(search: Any, said: str, toy_task: Any) -> None:
    with pytest.raises(Mistake, match=said):
        space(_project(toy_task, sweep=search))


def test_an_unknown_objective_is_refused(toy_task: Any) -> None:
    with pytest.raises(Mistake, match="there is no 'speed'"):
        sweep(_project(toy_task), objectives=("speed",))


def test_no_finished_trial_is_a_mistake(toy_task: Any) -> None:
    with pytest.raises(Mistake, match="no trial came to its end; raise --minutes"):
        sweep(_project(toy_task), trials=2, minutes=0.0001)


def test_the_usual_search_is_around_the_methods_own(toy_task: Any) -> None:
    project = resolve({**toy_task(), "learning_rate": None})
    dimensions = space(project)
    rate = project.method.module.LEARNING_RATE
    assert [one.key for one in dimensions][:2] == ["learning_rate", "num_train_epochs"]
    assert (dimensions[0].low, dimensions[0].high) == (rate / 10, rate * 10)
    assert dimensions[0].is_logarithmic
    assert usual_values(project, dimensions)["learning_rate"] == rate


def test_the_usual_search_for_an_encoder_is_around_its_own_rate(toy_task: Any, toy_encoder_folder: Path) -> None:
    project = resolve({**toy_task(model=str(toy_encoder_folder), method="full"), "learning_rate": None})
    rate = project.method.module.ENCODER_LEARNING_RATE
    dimensions = space(project)
    assert (dimensions[0].low, dimensions[0].high) == (rate / 10, rate * 10)
    assert usual_values(project, dimensions)["learning_rate"] == rate


def test_numbers_that_yaml_takes_for_text_are_numbers(toy_task: Any) -> None:
    (one,) = space(_project(toy_task, sweep={"learning_rate": ["1e-5", "1e-3"]}))
    assert (one.low, one.high) == (1e-5, 1e-3)

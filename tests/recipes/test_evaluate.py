from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.core.seed import derive
from tunesmith.evaluation.answers import Answerer, Prompting
from tunesmith.prompts.shots import Shots
from tunesmith.recipes._work import open_model, read_examples
from tunesmith.recipes.evaluate import evaluate
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]


def same(told: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("metrics", "n", "confusion", "examples", "prompt_tokens_per_query")
    return [told[key] for key in keys] == [other[key] for key in keys]


def test_a_prompt_is_measured_on_the_test_rows(toy_task: ToyTask, toy_folder: Path) -> None:
    told = tunesmith.evaluate(toy_task())
    project, examples = read_examples(tunesmith.load(toy_task()))
    model = open_model(str(toy_folder), "float32")
    answers = Answerer(model.prepared, model.template, project.task).answer(examples.test)
    assert told["n"] == len(examples.test)
    assert told["value"] == answers.measured.value
    assert (told["low"], told["high"]) == (answers.measured.low, answers.measured.high)
    assert told["metrics"].keys() == {"accuracy", "f1"}
    assert [one["output"] for one in told["examples"]] == list(answers.outputs[:8])
    assert told["prompt_tokens_per_query"] == pytest.approx(answers.prompt_tokens, abs=0.05)
    assert told["seconds_per_query"] > 0
    assert told["peak_memory_mb"] > 100
    assert (told["split"], told["artifact"], told["setting"]["shots"]) == ("test", None, 0)


def test_split_and_limit_choose_the_rows(toy_task: ToyTask) -> None:
    project, examples = read_examples(tunesmith.load(toy_task()))
    told = evaluate(project, split="validation", limit=5)
    assert told["n"] == 5
    assert [one["input"] for one in told["examples"]] == [row.input for row in examples.validation[:5]]


def test_shots_are_training_rows_and_follow_from_the_seed(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Prompting] = []
    genuine = Answerer.answer

    def watched(self: Answerer, records: Any, prompting: Prompting, *rest: Any) -> Any:
        seen.append(prompting)
        return genuine(self, records, prompting, *rest)

    monkeypatch.setattr(Answerer, "answer", watched)
    project, examples = read_examples(tunesmith.load(toy_task(shots=4)))
    told = evaluate(project, limit=8)
    assert told["setting"] == {"split": "test", "shots": 4, "how": "balanced", "calibrate": "none"}
    assert list(seen[0].shots) == Shots(examples.train).choose(None, 4, "balanced", derive(0, "shots"))
    assert sorted(shot.output for shot in seen[0].shots) == ["negative", "negative", "positive", "positive"]
    assert same(evaluate(project, limit=8), told)
    evaluate(project.model_copy(update={"seed": 5}), limit=8)
    assert seen[2].shots != seen[0].shots


def test_similar_shots_come_from_the_training_rows_too(toy_task: ToyTask) -> None:
    project = tunesmith.load(toy_task(shots=2))
    told = evaluate(project, how="similar", limit=6)
    assert told["setting"]["how"] == "similar"
    assert told["setting"]["shots"] == 2
    assert told["prompt_tokens_per_query"] > 80


@pytest.mark.parametrize("how", ["contextual", "batch"])
def test_calibration_changes_the_outputs_and_no_log_probability(how: Any, toy_task: ToyTask) -> None:
    project = tunesmith.load(toy_task(shots=2))
    plain, calibrated = evaluate(project), evaluate(project, calibrate=how)
    assert plain["confusion"] != calibrated["confusion"]
    assert plain["prompt_tokens_per_query"] == calibrated["prompt_tokens_per_query"]


def test_there_is_nothing_to_calibrate_without_labels(toy_task: ToyTask) -> None:
    task = toy_task(task={"name": "generation", "max_new_tokens": 2})
    with pytest.raises(Mistake, match="calibrate: generation has no labels"):
        evaluate(tunesmith.load(task), calibrate="contextual", limit=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Path:
    """A folder in which `runs/toy` was trained and its validation rows measured."""
    workplace = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        tunesmith.train(toy_task())
    return workplace


def test_an_artifact_measured_again_gives_the_same(
    trained: Path, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    result = json.loads(Path("runs/toy/result.json").read_text())
    told = tunesmith.evaluate(toy_task(), artifact="runs/toy", split="validation")
    assert same(told, result)
    tested = tunesmith.evaluate(toy_task(), artifact="runs/toy/artifact")
    assert tested["value"] > 0.75
    kept = {one.split: one.value for one in open_store().run("toy").evaluations if one.metric == "accuracy"}
    assert kept == {"validation": told["value"], "test": tested["value"]}


def test_the_command_measures(trained: Path, toy_task: ToyTask, capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task()))
    assert main(["evaluate", "task.yaml", "--shots", "2", "--how", "random", "--limit", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n"], told["setting"]["shots"], told["setting"]["how"]) == (4, 2, "random")
    assert main(["evaluate", "task.yaml", "--artifact", str(trained / "runs/toy"), "--split", "validation"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "seconds a query" in shown


def test_what_does_not_go_together_is_a_mistake(trained: Path, toy_task: ToyTask, reviews: Path) -> None:
    with pytest.raises(Mistake, match="got --shots and --artifact; expected one of them"):
        tunesmith.evaluate(toy_task(shots=2), artifact=trained / "runs/toy")
    with pytest.raises(Mistake, match="runs/none: nothing there; expected a run's folder"):
        tunesmith.evaluate(toy_task(), artifact="runs/none")
    with pytest.raises(Mistake, match=r"test: no rows; expected some; set data\.test"):
        tunesmith.evaluate(toy_task(data={"train": str(reviews), "validation": 0.1, "test": 0.0}))


def test_an_artifact_on_another_base_is_refused(
    trained: Path, toy_task: ToyTask, toy_folder: Path, toy_model: Callable[..., Any]
) -> None:
    shutil.copytree(toy_folder, "other")
    toy_model("llama", seed=1).save_pretrained("other")
    with pytest.raises(Mistake, match="made with other weights than other has now"):
        tunesmith.evaluate(toy_task(model="other"), artifact=trained / "runs/toy")


def test_another_chat_template_is_refused(trained: Path, toy_task: ToyTask, toy_folder: Path) -> None:
    shutil.copytree(toy_folder, "other")
    template = Path("other/chat_template.jinja")
    template.write_text(template.read_text().replace("helpful toy", "grumpy toy"))
    with pytest.raises(Mistake, match="made with another chat template than other has now"):
        tunesmith.evaluate(toy_task(model="other"), artifact=trained / "runs/toy")


def test_an_adapter_of_somebody_else_takes_the_task_from_the_file(trained: Path, toy_task: ToyTask) -> None:
    shutil.copytree(trained / "runs/toy/artifact", "theirs")
    for name in ("tunesmith.json", "prompting.json"):
        Path("theirs", name).unlink()
    told = tunesmith.evaluate(toy_task(), artifact="theirs", split="validation")
    assert same(told, json.loads((trained / "runs/toy/result.json").read_text()))

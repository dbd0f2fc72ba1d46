"""Several tasks of one file: rows mixed as asked, one adapter or one each, measured, reported and asked by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.core.mixture import Mixture, load
from tunesmith.recipes import _learn
from tunesmith.recipes._mixing import make_ready, read_members
from tunesmith.recipes._work import open_model
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]
Tasks = Callable[..., dict[str, Any]]


class Run(NamedTuple):
    """A finished run: its folder, and what `train` returned."""

    folder: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def tasks(toy_task: ToyTask, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """The keys of a file with 256 labelled reviews and 24 texts to be written off; what is given lies over them."""
    notes = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    rows = ({"text": f"the film was great {number}", "summary": f"film {number}"} for number in range(24))
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = toy_task()
    label, data = one.pop("task"), one.pop("data")
    write = {"name": "summarization", "instruction": "In short:", "max_new_tokens": 6}

    def make(**keys: Any) -> dict[str, Any]:
        return {
            **one,
            "tasks": [
                {"name": "label", "task": label, "data": data},
                {"name": "shorten", "task": write, "data": {"train": str(notes), "validation": 0.25, "test": 0.0}},
            ],
            "output_dir": "runs/both",
            "num_train_epochs": 1,
            **keys,
        }

    return make


def made(workplace: Path, task: dict[str, Any]) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        return Run(workplace / task["output_dir"], tunesmith.train(task))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, tasks: Tasks) -> Run:
    return made(tmp_path_factory.mktemp("one"), tasks(mixture="equal", num_train_epochs=2))


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory, tasks: Tasks) -> Run:
    return made(tmp_path_factory.mktemp("each"), tasks(adapters="each"))


def members_of(task: dict[str, Any], **keys: Any) -> Any:
    asked = load(task | keys)
    assert isinstance(asked, Mixture)
    asked, members = read_members(asked)
    make_ready(members, open_model(asked.shared.model, "float32"), asked.mixing)
    return members


def times(member: Any) -> set[int]:
    """How often the rows of a task are taken."""
    assert {row.ids for row in member.drawn} <= {row.ids for row in member.rows}
    return set(Counter(row.ids for row in member.drawn).values())


def test_rows_are_mixed_as_asked(tasks: Tasks) -> None:
    label, shorten = members_of(tasks())
    sizes = len(label.rows), len(shorten.rows)
    assert (len(label.drawn), len(shorten.drawn)) == sizes, "proportional: every row once an epoch"
    assert times(label) == {1}
    label, shorten = members_of(tasks(), mixture="equal", num_train_epochs=3)
    assert abs(len(label.drawn) - len(shorten.drawn)) <= 1
    assert len(label.drawn) + len(shorten.drawn) == 3 * sum(sizes)
    assert len(label.rows) > 4 * len(shorten.rows)
    assert len(times(shorten)) <= 2 < min(times(shorten))
    assert max(times(shorten)) - min(times(shorten)) <= 1
    label, shorten = members_of(tasks(), size_limit=sizes[1])
    assert len(label.drawn) == len(shorten.drawn) == sizes[1], "T5's limit: the large task counts as the small one"
    label, shorten = members_of(tasks(), mixture="equal", max_steps=5)
    assert (len(label.drawn), len(shorten.drawn)) == (20, 20), "five steps of eight rows, half of them each"


def test_every_task_is_measured_by_its_own_metric(one: Run) -> None:
    label, shorten = one.result["tasks"]
    assert (label["name"], label["metric"]) == ("label", "accuracy")
    assert (shorten["name"], shorten["metric"]) == ("shorten", "rouge_l")
    assert set(shorten["metrics"]) == {"rouge_l", "rouge_1", "rouge_2", "rouge_lsum"}
    assert label["low"] > 0.5
    assert label["n"] == label["data"]["validation"]
    assert label["low"] <= label["value"] <= label["high"]
    assert label["share"] == shorten["share"] == 0.5
    assert shorten["passes"] > 2 > label["passes"]
    [adapter] = one.result["trained"]
    assert adapter["tasks"] == ["label", "shorten"]
    assert adapter["forgetting_kl"] > 0


def test_a_mixture_leaves_what_a_run_leaves(one: Run) -> None:
    assert json.loads((one.folder / "result.json").read_text(encoding="utf-8")) == one.result
    receipt = json.loads((one.folder / "receipt.json").read_text(encoding="utf-8"))
    assert receipt["rows"] == sum(told["drawn"] for told in receipt["tasks"].values())
    assert receipt["tasks"]["label"]["rows_by_label"].keys() == {"negative", "positive"}
    config = yaml.safe_load((one.folder / "config.yaml").read_text(encoding="utf-8"))
    assert [task["name"] for task in config["tasks"]] == ["label", "shorten"]
    page = (one.folder / "report.html").read_text(encoding="utf-8")
    assert "one adapter for 2 tasks" in page
    assert "label: accuracy" in page
    assert "Outputs of shorten" in page
    run = open_store(one.folder.parent.parent / "tunesmith.db").run("both")
    assert (run.kind, run.status) == ("mixture", "finished")
    kept = {(one.metric, one.setting["task"]): one.value for one in run.evaluations}
    assert kept["accuracy", "label"] == one.result["tasks"][0]["value"]
    assert kept["rouge_l", "shorten"] == one.result["tasks"][1]["value"]


def test_one_adapter_does_the_work_of_each_task_by_name(one: Run) -> None:
    label = tunesmith.speaker(one.folder, task_name="label")
    assert label.answer(["the film was wonderful 3"])[0]["output"] == "positive"
    shorten = tunesmith.speaker(one.folder, task_name="shorten")
    assert shorten.answerer.task.name == "summarization"
    assert "probabilities" not in shorten.answer(["the film was great 3"])[0]
    with pytest.raises(Mistake, match="holds several tasks; expected one of label, shorten; type --task label"):
        tunesmith.speaker(one.folder)
    with pytest.raises(Mistake, match=r"got --task shortn; .* did you mean 'shorten'"):
        tunesmith.speaker(one.folder, task_name="shortn")


def test_evaluating_a_task_of_the_file_repeats_what_training_measured(one: Run, each: Run) -> None:
    for run in (one, each):
        for task in run.result["tasks"]:
            told = tunesmith.evaluate(
                run.folder / "config.yaml", task_name=task["name"], artifact=run.folder, split="validation"
            )
            assert told["metrics"] == task["metrics"]


def test_an_adapter_for_each_is_the_adapter_of_that_task_alone(each: Run, tasks: Tasks) -> None:
    assert [adapter["name"] for adapter in each.result["trained"]] == ["label", "shorten"]
    assert "an adapter for each of 2 tasks" in (each.folder / "report.html").read_text(encoding="utf-8")
    folders = [each.folder / "tasks" / name / "artifact/adapter_model.safetensors" for name in ("label", "shorten")]
    assert folders[0].read_bytes() != folders[1].read_bytes()
    # The base is whole again in between: the second alone comes out the same, bit for bit.
    alone = tasks(adapters="each", output_dir="runs/alone")
    alone["tasks"] = alone["tasks"][1:] + alone["tasks"][:1]
    again = tunesmith.train(alone, evaluate=False)
    assert Path("runs/alone/tasks/shorten/artifact/adapter_model.safetensors").read_bytes() == folders[1].read_bytes()
    assert [task["name"] for task in again["tasks"]] == ["shorten", "label"]
    assert tunesmith.speaker(each.folder, task_name="label").answer(["the plot was dull 1"])[0]["output"] == "negative"
    assert tunesmith.speaker(each.folder / "tasks/label").answerer.task.name == "classification"


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "prompt_tuning", "num_virtual_tokens": 3}])
@pytest.mark.parametrize("adapters", ["one", "each"])
def test_whole_models_and_soft_prompts_serve_several_tasks(method: dict[str, Any], adapters: str, tasks: Tasks) -> None:
    task = tasks(method=method, adapters=adapters, learning_rate=1e-3, max_steps=4, forgetting={"replay": 0.2})
    for one in task["tasks"]:
        one["data"] = one["data"] | {"max_rows": 16, "validation": 0.1}
    result = tunesmith.train(task)
    assert len(result["trained"]) == (1 if adapters == "one" else 2)
    assert all(one["receipt"]["replayed_rows"] > 0 for one in result["trained"])
    for one in result["tasks"]:
        told = tunesmith.evaluate(task, task_name=one["name"], artifact="runs/both", split="validation")
        assert told["metrics"] == one["metrics"]


def test_a_head_for_one_task_is_no_method_for_several(tasks: Tasks) -> None:
    with pytest.raises(Mistake, match="method: features is a head for one task, not several; type"):
        tunesmith.train(tasks(method="features"))


def test_an_interrupted_mixture_goes_on(one: Run, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = _learn.fit

    def interrupted(job: Any) -> Any:
        def press(step: Any) -> None:
            if step.number == 3:
                raise KeyboardInterrupt

        return genuine(job, press)

    task = tasks(mixture="equal", num_train_epochs=2, save_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(_learn, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tunesmith.train(task, evaluate=False)
    tunesmith.train(task, evaluate=False)
    again = Path("runs/both/artifact/adapter_model.safetensors").read_bytes()
    assert again == (one.folder / "artifact/adapter_model.safetensors").read_bytes()


def test_the_commands(tasks: Tasks, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tasks.yaml").write_text(yaml.safe_dump(tasks(), sort_keys=False))
    assert main(["train", "tasks.yaml", "--max_steps", "2", "--mixture", "temperature", "--data.max_rows", "40"]) == 0
    told = capsys.readouterr().out
    assert "shorten" in told
    assert "rouge l" in told
    assert "--task label" in told
    assert main(["generate", "--artifact", "runs/both", "--task", "label", "the film was wonderful 3"]) == 0
    assert capsys.readouterr().out.split()[0] in {"positive", "negative"}
    assert main(["generate", "--artifact", "runs/both", "a text"]) == 2
    assert main(["data", "check", "tasks.yaml", "--task", "shorten", "--json"]) == 0
    assert main(["climb", "tasks.yaml"]) == 2
    assert "has the tasks label, shorten; expected one; type --task label" in capsys.readouterr().err


@pytest.mark.parametrize("adapters", ["one", "each"])
def test_an_adapter_for_several_tasks_is_scaled_on_the_rows_of_one(
    adapters: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: Run = request.getfixturevalue(adapters)
    told = tunesmith.scale(run.folder, factor=0.5, task_name="label", limit=8, output_dir=tmp_path / "half")
    assert told["factors"][0]["metric"] == "accuracy"
    half = tunesmith.speaker(tmp_path / "half", task_name="label" if adapters == "one" else None)
    assert half.answer(["the plot was dull 1"])[0]["output"] in ("negative", "positive")
    if adapters == "one":
        assert tunesmith.speaker(tmp_path / "half", task_name="shorten").answerer.task.name == "summarization"
        with pytest.raises(Mistake, match=r"has the tasks .*type --task"):
            tunesmith.scale(run.folder)

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import Tensor

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.recipes import _race, _rungs, climb
from tunesmith.recipes._bench import open_bench
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]
RUNGS = ["zero_shot", "few_shot", "bitfit", "lora"]
LEARNS = {"num_train_epochs": 3, "save_steps": 5}
OF_THE_ISSUE = {
    "name",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "train_seconds",
    "peak_memory_mb",
    "trainable_parameters",
    "artifact_bytes",
    "prompt_tokens_per_query",
    "seconds_per_query",
    "forgetting_kl",
    "forgetting_bits_per_byte",
    "chosen",
}


class Climbed(NamedTuple):
    """A finished climb: its folder, what `climb` returned, the folder it was started in, and the base around it."""

    folder: Path
    told: dict[str, Any]
    workplace: Path
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def rung(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.told["rungs"] if one["name"] == name)
        return found


def snapshot(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Climbed:
    workplace = tmp_path_factory.mktemp("climb")
    models, snapshots = [], []

    def watched(*given: Any) -> Any:
        bench = open_bench(*given)
        models.append(bench.model.loaded.model)
        snapshots.append(snapshot(models[0]))
        return bench

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        patch.setattr(climb, "open_bench", watched)
        told = tunesmith.climb(toy_task(**LEARNS), rungs=RUNGS, minutes=10, budget__price_per_hour=36.0)
    return Climbed(workplace / "runs/toy", told, workplace, snapshots[0], snapshot(models[0]))


def test_climb_json_has_the_fields_of_the_issue(climbed: Climbed) -> None:
    kept = json.loads((climbed.folder / "climb.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert kept == climbed.told
    assert [one["name"] for one in kept["rungs"]] == RUNGS
    for one in kept["rungs"]:
        assert one.keys() >= OF_THE_ISSUE
        assert one["metric"] == "accuracy"
        assert one["low"] <= one["value"] <= one["high"]
        assert one["n"] == kept["data"]["validation"]
        assert one["peak_memory_mb"] > 100
        assert one["money"] == pytest.approx(one["seconds"] / 100)
        assert one["seconds_per_query"] > 0


def test_every_rung_has_its_price(climbed: Climbed) -> None:
    zero, few, bitfit, lora = map(climbed.rung, RUNGS)
    assert zero["train_seconds"] == zero["trainable_parameters"] == few["trainable_parameters"] == 0
    assert few["prompt_tokens_per_query"] > zero["prompt_tokens_per_query"] == lora["prompt_tokens_per_query"]
    assert 0 < bitfit["trainable_parameters"] < lora["trainable_parameters"] == 8192
    assert 0 < bitfit["artifact_bytes"] < lora["artifact_bytes"]
    assert zero["forgetting_kl"] == few["forgetting_kl"] == 0.0
    assert bitfit["forgetting_kl"] > 0
    assert lora["forgetting_kl"] > 0
    assert 0 < lora["train_seconds"] < lora["seconds"]


def test_the_winner_lies_in_artifact_and_was_proven_on_test_rows(climbed: Climbed) -> None:
    [chosen] = [one for one in climbed.told["rungs"] if one["chosen"]]
    assert chosen["name"] == "lora"  # the only one that can learn this
    assert chosen["low"] > climbed.rung("zero_shot")["value"]
    theirs, ours = climbed.folder / "rungs/lora/artifact", climbed.folder / "artifact"
    assert [path.name for path in sorted(ours.iterdir())] == [path.name for path in sorted(theirs.iterdir())]
    assert all((ours / path.name).read_bytes() == path.read_bytes() for path in theirs.iterdir())
    told = climbed.told
    assert told["test"]["n"] == told["test_baseline"]["n"] == told["data"]["test"]
    assert told["test"]["low"] > told["test_baseline"]["high"]
    assert told["verdict"].startswith(f"Use lora: accuracy {told['test']['value']:.3f} (")
    assert told["verdict"].count("\n") == 0
    assert told["command"] == 'tunesmith generate --artifact runs/toy "your text"'
    assert climbed.rung("zero_shot")["versus_best"]["high"] < 0


def test_the_report_is_one_page_that_needs_nothing_else(climbed: Climbed) -> None:
    page = (climbed.folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert all(name in page for name in RUNGS)
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_store_has_the_climb(climbed: Climbed) -> None:
    run = open_store(climbed.workplace / "tunesmith.db").run("toy")
    assert (run.kind, run.status, run.data_version) == ("climb", "finished", climbed.told["data"]["version"])
    kept = {(one.split, one.setting["rung"]): one.value for one in run.evaluations if one.metric == "accuracy"}
    assert kept == {
        **{("validation", one["name"]): one["value"] for one in climbed.told["rungs"]},
        ("test", "lora"): climbed.told["test"]["value"],
        ("test", "zero_shot"): climbed.told["test_baseline"]["value"],
    }


def test_the_base_is_bit_for_bit_what_it_was(climbed: Climbed) -> None:
    assert climbed.before.keys() == climbed.after.keys()
    for name, tensor in climbed.before.items():
        assert torch.equal(tensor, climbed.after[name]), name


def test_interrupted_it_keeps_what_is_finished_and_goes_on(
    climbed: Climbed, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task(**LEARNS)))
    line = ["climb", "task.yaml", "--rungs", ",".join(RUNGS), "--minutes", "10"]
    genuine = _rungs.fit

    def interrupted(job: Any) -> Any:
        def press(step: Any) -> None:
            if job.description == "lora" and step.number == 12:
                raise KeyboardInterrupt

        return genuine(job, press)

    with monkeypatch.context() as patch:
        patch.setattr(_rungs, "fit", interrupted)
        assert main(line) == 130
    assert "finished rungs are kept in runs/toy; type the same command again" in capsys.readouterr().err
    before = json.loads(Path("runs/toy/climb.json").read_text())
    assert [one["status"] for one in before["rungs"]] == ["finished", "finished", "finished", "interrupted"]
    assert Path("runs/toy/report.html").exists()
    assert open_store().run("toy").status == "interrupted"

    def never(*_: Any) -> Any:
        pytest.fail("done before")

    started = []

    def resumed(job: Any) -> Any:
        started.append(job.description)
        return genuine(job)

    monkeypatch.setattr(climb, "zero_shot", never)
    monkeypatch.setattr(climb, "few_shot", never)
    monkeypatch.setattr(_race, "fit", never)
    monkeypatch.setattr(_rungs, "fit", resumed)
    assert main(line) == 0
    assert started == ["lora"]
    assert "zero_shot: finished before" in capsys.readouterr().err
    after = json.loads(Path("runs/toy/climb.json").read_text())
    assert [{**one, "versus_best": {}} for one in after["rungs"][:3]] == before["rungs"][:3]
    # lora went on from step 10 and came out as if it had never been stopped.
    assert (Path("runs/toy/rungs/lora/metrics.jsonl")).read_bytes() == (
        (climbed.folder / "rungs/lora/metrics.jsonl").read_bytes()
    )
    assert Path("runs/toy/artifact/adapter_model.safetensors").read_bytes() == (
        (climbed.folder / "artifact/adapter_model.safetensors").read_bytes()
    )
    assert [one["value"] for one in after["rungs"]] == [one["value"] for one in climbed.told["rungs"]]
    assert open_store().run("toy").status == "finished"


@pytest.mark.parametrize("other", [{"seed": 1}, {"method": {"name": "lora", "r": 2}}, {"max_length": 100}], ids=str)
def test_a_folder_with_another_climb_is_refused_and_left_alone(
    climbed: Climbed, toy_task: ToyTask, other: dict[str, Any]
) -> None:
    files = ("climb.json", "config.yaml", "report.html", "rows.json")
    before = [(climbed.folder / name).read_bytes() for name in files]
    task = toy_task(**LEARNS, output_dir=str(climbed.folder)) | other
    with pytest.raises(Mistake, match=r"holds another run \(other (seed|method|max_length)\); choose another"):
        tunesmith.climb(task, rungs=RUNGS, minutes=10)
    with pytest.raises(Mistake, match="kind of run"):
        tunesmith.train(toy_task(**LEARNS, output_dir=str(climbed.folder)))
    assert [(climbed.folder / name).read_bytes() for name in files] == before


def test_a_winner_that_forgets_more_than_asked_comes_with_the_remedy(toy_task: ToyTask) -> None:
    asked = {"max_kl": 0.001, "replay": 0.1, "kl": 0.01}
    told = tunesmith.climb(toy_task(**LEARNS, forgetting=asked), rungs=["lora"], minutes=10)
    [lora] = told["rungs"]
    assert lora["receipt"]["replayed_rows"] > 0
    assert '"kl":' in Path("runs/toy/rungs/lora/metrics.jsonl").read_text()
    offered = told["verdict"].split("type: ")[1]
    assert offered == "tunesmith scale runs/toy --max-kl 0.001"
    page = Path("runs/toy/report.html").read_text(encoding="utf-8")
    assert "at most 0.001" in page.split("What was forgotten")[1]
    scaled = tunesmith.scale("runs/toy", max_kl=lora["forgetting_kl"] / 2)
    assert scaled["factors"][0]["forgetting_kl"] == pytest.approx(lora["forgetting_kl"], rel=1e-5)
    assert scaled["artifact"] == "runs/toy/scaled/artifact"


def test_the_target_ends_the_climb(toy_task: ToyTask) -> None:
    told = tunesmith.climb(toy_task(), rungs=["zero_shot", "few_shot", "lora"], target=0.2, minutes=10)
    assert [one["status"] for one in told["rungs"]] == ["finished", "skipped", "skipped"]
    assert told["stopped"] == "not needed: zero_shot meets the target of 0.2"
    assert told["rungs"][0]["chosen"]
    assert sorted(path.name for path in Path("runs/toy/artifact").iterdir()) == ["prompting.json"]


def test_minutes_are_obeyed(toy_task: ToyTask) -> None:
    minutes, begun = 0.1, time.monotonic()
    told = tunesmith.climb(toy_task(learning_rate=None, num_train_epochs=1000), rungs=[*RUNGS, "full"], minutes=minutes)
    # Without the budget it would be many minutes; the slack is for a machine that is busy with other work.
    assert time.monotonic() - begun < 60 * minutes + 45
    assert told["rungs"][0]["status"] == "finished"
    assert told["test"]["n"] > 0


def test_a_run_that_takes_longer_than_thought_is_stopped_in_time(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rungs, "race", lambda *_: _race.RacePlan(learning_rate=1e-2, steps=1_000_000))
    minutes, begun = 0.08, time.monotonic()
    told = tunesmith.climb(toy_task(), rungs=["zero_shot", "lora"], minutes=minutes)
    # A million steps would be hours; on a machine busy with other work there may not be time for the first.
    assert time.monotonic() - begun < 60 * minutes + 45
    assert told["rungs"][1]["reason"].startswith(("time: ", "too little time: ", "no time left"))


def test_a_rate_that_diverges_loses_the_race(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_race, "FACTORS", (1e30, 20.0))
    task = toy_task(learning_rate=None, num_train_epochs=4)  # long enough races to be given up on the way
    told = tunesmith.climb(task, rungs=["zero_shot", "lora"], minutes=10)
    json.loads(Path("runs/toy/climb.json").read_text(), parse_constant=pytest.fail)
    lora = told["rungs"][1]
    assert lora["config"]["learning_rate"] == pytest.approx(20 * 2e-4)
    assert [one["value"] is None for one in lora["race"]] == [True, False]


def test_a_rung_that_diverges_does_not_end_the_climb(toy_task: ToyTask) -> None:
    told = tunesmith.climb(toy_task(learning_rate=1e30), rungs=["zero_shot", "bitfit"], minutes=10)
    assert [one["status"] for one in told["rungs"]] == ["finished", "skipped"]
    assert "diverged" in told["rungs"][1]["reason"]
    assert told["verdict"].startswith("Use zero_shot")


def test_a_rung_that_does_not_fit_into_memory_is_told_and_passed_over(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.recipes._bench.need_memory", lambda project: None)  # as if the model alone did fit
    told = tunesmith.climb(toy_task(), rungs=["zero_shot", "lora"], minutes=10, memory_gb=0.01)
    assert [one["status"] for one in told["rungs"]] == ["finished", "skipped"]
    assert "the budget is 0.0 GB" in told["rungs"][1]["reason"]
    with pytest.raises(Mistake, match="no rung could be tried"):
        tunesmith.climb(toy_task(output_dir="runs/none"), rungs=["lora"], minutes=10, memory_gb=0.01)


@pytest.mark.parametrize(
    ("values", "tried", "chosen"),
    [([0.5, 0.4, 0.6, 0.6, 0.5], [1, 2, 4, 8, 16], 4), ([0.5, 0.4, 0.5, 0.9], [1, 2, 4], 1), ([0.1, 0.2], [1, 2], 2)],
)
def test_one_disappointment_does_not_end_the_search_for_shots(
    values: list[float], tried: list[int], chosen: int, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter(values)
    monkeypatch.setattr(_rungs, "_calibrated", lambda bench, prompting, probe: (next(coming), prompting, None))
    monkeypatch.setattr(_rungs, "_room", lambda *_: 2 ** (len(values) - 1))
    told = tunesmith.climb(toy_task(), rungs=["few_shot"], minutes=10)
    assert [one["shots"] for one in told["rungs"][0]["race"]] == tried
    assert told["rungs"][0]["config"]["shots"] == chosen


def test_rungs_go_from_cheap_to_dear_whatever_order_they_are_given_in(toy_task: ToyTask) -> None:
    project = tunesmith.load(toy_task(rungs=["full", "lora", "zero_shot", "lora"]))
    assert climb.rungs_of(project) == ["zero_shot", "lora", "full"]
    assert climb.rungs_of(tunesmith.load(toy_task())) == ["zero_shot", "few_shot", "prompt_tuning", "bitfit", "lora"]
    with pytest.raises(Mistake, match=r"rungs: there is no 'loar'; did you mean 'lora'\?"):
        climb.rungs_of(tunesmith.load(toy_task(rungs=["loar"])))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_rows_is_a_mistake(split: str, toy_task: ToyTask, reviews: Path) -> None:
    Path("none.jsonl").write_text("")
    data = {"train": str(reviews), "validation": 0.2, "test": 0.2}
    data |= {"validation": 0.0} if split == "validation" else {"train": "none.jsonl"}
    with pytest.raises(Mistake, match=r"validation: no rows|none\.jsonl"):
        tunesmith.climb(toy_task(data=data), rungs=["zero_shot"])


def test_a_climb_without_test_rows_tells_of_validation(toy_task: ToyTask, reviews: Path) -> None:
    data = {"train": str(reviews), "validation": 0.2, "test": 0.0}
    told = tunesmith.climb(toy_task(data=data), rungs=["zero_shot"], minutes=10)
    assert told["test"] is None
    assert "validation rows" in told["verdict"]

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.recipes import _learn as recipe
from tunesmith.recipes.generate import speaker as open_speaker
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]
STEPS = 24


class Run(NamedTuple):
    """A finished run: its folder, what `train` returned, and the folder it was started in."""

    folder: Path
    result: dict[str, Any]
    workplace: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


def make(workplace: Path, task: dict[str, Any], **keys: Any) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        return Run(workplace / task["output_dir"], tunesmith.train(task, **keys), workplace)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Run:
    task = toy_task(output_dir="runs/lora", max_steps=STEPS, eval_steps=4, save_steps=10)
    return make(tmp_path_factory.mktemp("lora"), task)


@pytest.fixture(scope="module")
def prompt_tuning(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Run:
    method = {"name": "prompt_tuning", "num_virtual_tokens": 5, "init": "text"}
    task = toy_task(output_dir="runs/soft", method=method, learning_rate=0.1, max_steps=8)
    return make(tmp_path_factory.mktemp("soft"), task, evaluate=False)


def artifact_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "artifact").iterdir())}


def without_memory(receipt: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in receipt.items() if key != "memory_estimate_mb"}


def test_a_run_leaves_what_the_design_says(lora: Run) -> None:
    there = {path.name for path in lora.folder.iterdir()}
    assert {"config.yaml", "receipt.json", "metrics.jsonl", "checkpoints", "artifact", "result.json"} <= there
    assert (lora.folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert lora.json("result.json") == lora.result
    assert yaml.safe_load((lora.folder / "config.yaml").read_text())["method"]["r"] == 8


def test_the_receipt_counts_tokens_and_rows(lora: Run) -> None:
    receipt, data = lora.json("receipt.json"), lora.result["data"]
    speaker = tunesmith.speaker(lora.folder)
    length = {label: len(speaker.answerer.template.tokenizer(label)["input_ids"]) for label in ("positive", "negative")}
    assert receipt["rows"] == data["train"]
    assert data["train"] + data["validation"] + data["test"] == 256
    # Every row trains its label's tokens and the one that ends the turn.
    assert receipt["trained_tokens"] - receipt["rows"] in range(
        min(length.values()) * receipt["rows"], max(length.values()) * receipt["rows"] + 1
    )
    assert receipt["trained_tokens"] < receipt["tokens"]
    assert (receipt["rows_dropped"], receipt["rows_truncated"]) == (0, 0)
    assert receipt["template"] == speaker.answerer.template.hash
    assert receipt["steps"] == STEPS


def test_a_step_is_a_line(lora: Run) -> None:
    steps = [line for line in lora.lines() if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(line.keys() >= {"learning_rate", "grad_norm", "tokens"} for line in steps)
    validated = {line["step"]: line["validation_loss"] for line in lora.lines() if "validation_loss" in line}
    assert validated == {point["step"]: point["validation"] for point in lora.result["curve"]}
    assert min(validated.values()) == lora.result["best_validation_loss"]


def test_it_learns_and_says_what_that_cost(lora: Run) -> None:
    result = lora.result
    assert result["metric"] == "accuracy"
    assert result["low"] > 0.5
    assert result["n"] == result["data"]["validation"]
    assert sum(map(sum, result["confusion"]["counts"])) == result["n"]
    assert result["forgetting_kl"] > 0
    assert result["peak_memory_mb"] > 100
    assert 0 < result["train_seconds"] < result["seconds"]
    assert result["trainable_parameters"] == lora.json("receipt.json")["trainable_parameters"] == 8192
    assert result["artifact_bytes"] == sum(len(content) for content in artifact_bytes(lora.folder).values())


def test_the_store_has_the_run(lora: Run) -> None:
    run = open_store(lora.workplace / "tunesmith.db").run("lora")
    assert (run.kind, run.status) == ("train", "finished")
    assert run.data_version == lora.result["data"]["version"]
    kept = {one.metric: one.value for one in run.evaluations if one.split == "validation"}
    assert kept == {name: one["value"] for name, one in lora.result["metrics"].items()}
    assert [artifact.bytes for artifact in run.artifacts] == [lora.result["artifact_bytes"]]
    assert run.peak_memory_mb == lora.result["peak_memory_mb"]


# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_peft_loads_the_artifact_and_gives_the_same_logits(
    method: str, toy_folder: Path, request: pytest.FixtureRequest
) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    run: Run = request.getfixturevalue(method)
    speaker = open_speaker(artifact=run.folder, project=tunesmith.load(run.folder / "config.yaml"))
    ids = speaker.answerer.template.prompt(speaker.answerer.prompts([_question()], speaker.prompting)[0])
    batch = pack([Encoded((*ids, 0), (*([0.0] * len(ids)), 1.0))], prefix=speaker.prompting.prefix)
    with torch.no_grad():
        ours = logits(speaker.answerer.prepared, batch, torch.arange(len(batch.tokens)))[-len(ids) :]
        base = AutoModelForCausalLM.from_pretrained(toy_folder, dtype=torch.float32)
        plain = base(input_ids=torch.tensor([ids])).logits[0]
        theirs = peft.PeftModel.from_pretrained(base, run.folder / "artifact")(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours, theirs[-len(ids) :], rtol=0, atol=1e-4)
    assert (ours - plain).abs().max() > 0.1


def _question() -> Any:
    from tunesmith.core.records import Labelled

    return Labelled("the film was wonderful 3", "positive")


def test_running_config_yaml_again_repeats_the_run(lora: Run) -> None:
    again = tunesmith.train(lora.folder / "config.yaml", output_dir="runs/again")
    there = Path("runs/again")
    assert (there / "metrics.jsonl").read_bytes() == (lora.folder / "metrics.jsonl").read_bytes()
    assert artifact_bytes(there) == artifact_bytes(lora.folder)
    receipt = json.loads((there / "receipt.json").read_text())
    assert without_memory(receipt) == without_memory(lora.json("receipt.json"))
    config, repeated = (yaml.safe_load((place / "config.yaml").read_text()) for place in (lora.folder, there))
    assert repeated == config | {"output_dir": "runs/again"}
    measured_anew = {"seconds", "train_seconds", "seconds_per_query", "peak_memory_mb", "receipt", "machine"}
    measured_anew |= {"name", "command"}
    assert {key: again[key] for key in again.keys() - measured_anew} == {
        key: lora.result[key] for key in lora.result.keys() - measured_anew
    }


def test_the_command_trains(toy_task: ToyTask, capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task()))
    assert main(["train", "task.yaml", "--max_steps", "2", "--no-evaluate", "--method.r", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(Path("runs/toy/result.json").read_text(encoding="utf-8"))
    assert (told["config"]["r"], told["config"]["steps"], told["n"]) == (4, 2, 0)


def test_people_are_told_what_came_out(toy_task: ToyTask, capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task()))
    assert main(["train", "task.yaml", "--max_steps", "2", "--no-evaluate"]) == 0
    told = capsys.readouterr()
    assert "2 steps" in told.out
    assert 'tunesmith generate --artifact runs/toy "your text"' in told.out
    assert "tokens trained, 0 rows cut, 0 dropped" in told.err


def test_no_validation_rows_is_no_obstacle(toy_task: ToyTask, reviews: Path) -> None:
    data = {"train": str(reviews), "validation": 0.0, "test": 0.0}
    result = tunesmith.train(toy_task(data=data, max_steps=2))
    assert (result["n"], result["value"], result["best_validation_loss"]) == (0, None, None)
    assert Path("runs/toy/report.html").exists()


def test_a_price_an_hour_becomes_a_price(toy_task: ToyTask) -> None:
    result = tunesmith.train(toy_task(max_steps=1, budget={"price_per_hour": 36.0}), evaluate=False)
    assert result["money"] == pytest.approx(result["seconds"] / 100)


def test_the_deadline_ends_a_run_in_good_order(toy_task: ToyTask) -> None:
    result = tunesmith.train(toy_task(num_train_epochs=10_000, budget={"minutes": 0.01}), evaluate=False)
    assert result["reason"].startswith("time: ")
    assert 1 <= result["config"]["steps"] < 200_000
    assert result["train_seconds"] < 5
    assert Path("runs/toy/artifact/adapter_model.safetensors").exists()


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while this step is taken; once."""
    genuine = recipe.fit

    def fit(job: Any) -> Any:
        def press(at: Any) -> None:
            if at.number == step:
                os.kill(os.getpid(), signal.SIGINT)

        return genuine(job, press)

    monkeypatch.setattr(recipe, "fit", fit)


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(
    lora: Run, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task(max_steps=STEPS, eval_steps=4, save_steps=10)))
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert main(["train", "task.yaml", "--no-evaluate"]) == 130
    assert "type the same command again" in capsys.readouterr().err
    assert open_store().run("toy").status == "interrupted"
    assert not Path("runs/toy/artifact").exists()
    assert main(["train", "task.yaml", "--no-evaluate"]) == 0
    assert "going on after step" in capsys.readouterr().err
    assert open_store().run("toy").status == "finished"
    assert Path("runs/toy/metrics.jsonl").read_bytes() == (lora.folder / "metrics.jsonl").read_bytes()
    assert artifact_bytes(Path("runs/toy")) == artifact_bytes(lora.folder)


SERVER = """
import os, sys
from tunesmith.cli._main import main

task, *rest = sys.argv[1:]
quiet = ["--no-evaluate", "--quiet"]
told = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
main(["train", task, "--max_steps", "1", "--output_dir", "warm", *quiet])  # every import, before anything is forked
for folder in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child == 0:
        os._exit(main(["train", task, "--output_dir", folder.strip(), *quiet]))
    os.write(told, f"{child}\\n".encode())
    os.write(told, f"{os.waitpid(child, 0)[1]}\\n".encode())
"""


class Trainings:
    """Runs `tunesmith train` in a process of its own, which has imported everything already."""

    def __init__(self, task: Path) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )

    def run(self, folder: str, kill_after: float | None = None) -> int:
        """Train into `folder`, SIGKILL after so many seconds if it still runs; returns the wait status, 0 for done."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(folder.encode() + b"\n")
        child = int(self.server.stdout.readline())
        if kill_after is not None and not select.select([self.server.stdout], [], [], kill_after)[0]:
            with contextlib.suppress(ProcessLookupError):  # done in this very moment
                os.kill(child, signal.SIGKILL)
        return int(self.server.stdout.readline())

    def close(self) -> None:
        self.server.communicate(timeout=30)


@pytest.fixture
def trainings(toy_task: ToyTask) -> Iterator[Trainings]:
    method = {"name": "lora", "r": 8, "alpha": 16, "dropout": 0.2}  # which draws random numbers at every step
    task = toy_task(method=method, max_steps=STEPS, eval_steps=4, save_steps=3)
    Path("task.yaml").write_text(yaml.safe_dump(task))
    made = Trainings(Path("task.yaml"))
    yield made
    made.close()


def test_killed_at_any_moment_and_resumed_it_is_the_run_that_was_never_stopped(trainings: Trainings) -> None:
    assert trainings.run("once") == 0
    begun = time.monotonic()
    assert trainings.run("whole") == 0
    length = time.monotonic() - begun
    moments, kills = random.Random(0), 0
    while kills < 10:
        if trainings.run("broken", kill_after=moments.uniform(0, length)) == 0:
            _same_run("broken", "whole")  # done before the moment came: the next one is for a fresh run
            shutil.rmtree("broken")
        else:
            kills += 1
    assert trainings.run("broken") == 0
    _same_run("broken", "whole")
    _same_run("once", "whole")
    assert [path.name for path in Path("broken").rglob("*.partial")] == []


def _same_run(first: str, second: str) -> None:
    one, other = Path(first), Path(second)
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    assert artifact_bytes(one) == artifact_bytes(other)
    curves = [json.loads((place / "result.json").read_text())["curve"] for place in (one, other)]
    assert curves[0] == curves[1]
    receipts = [json.loads((place / "receipt.json").read_text()) for place in (one, other)]
    assert without_memory(receipts[0]) == without_memory(receipts[1])


@pytest.fixture
def other_weights(toy_model: Callable[..., Any], toy_folder: Path, workplace: Path) -> Path:
    """A model of the same shape and tokenizer with other weights."""
    folder = workplace / "other"
    shutil.copytree(toy_folder, folder)
    toy_model("llama", seed=1).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 5e-3},
        {"seed": 1},
        {"weight_decay": 0.1},
        {"method": {"name": "lora", "r": 8, "alpha": 4}},
        {"method": {"name": "bitfit"}},
        {"model": "other"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_a_folder_with_another_run_is_refused_and_left_alone(
    lora: Run, toy_task: ToyTask, other: dict[str, Any], other_weights: Path
) -> None:
    shutil.copytree(lora.folder, "runs/lora")
    before = digests(Path("runs/lora"))
    task = toy_task(output_dir="runs/lora", max_steps=STEPS, eval_steps=4, save_steps=10)
    with pytest.raises(Mistake, match=r"runs/lora: .*another"):
        tunesmith.train(task | other)
    assert digests(Path("runs/lora")) == before


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_folder_in_use_is_refused(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def inside(job: Any) -> Any:
        with pytest.raises(Mistake, match="in use by another process"):
            tunesmith.train(toy_task(max_steps=1), evaluate=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "fit", inside)
    with pytest.raises(KeyboardInterrupt):
        tunesmith.train(toy_task(max_steps=1), evaluate=False)


def test_a_run_that_diverges_leaves_no_artifact(toy_task: ToyTask) -> None:
    with pytest.raises(Mistake, match="diverged"):
        tunesmith.train(toy_task(learning_rate=1e30, max_steps=STEPS), evaluate=False)
    assert not Path("runs/toy/artifact").exists()
    run = open_store().run("toy")
    assert run.status == "failed"
    assert "diverged" in run.message


def test_a_run_that_cannot_fit_is_refused_before_it_starts(toy_task: ToyTask) -> None:
    with pytest.raises(Mistake, match=r"the budget is 0\.0 GB; .*--budget\.memory_gb"):
        tunesmith.train(toy_task(budget={"memory_gb": 0.01}), evaluate=False)
    assert not Path("runs/toy/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"max_length": 20, "too_long": "drop"}, r"no row fits into 20 tokens \(max_length\); raise max_length"),
        ({"max_length": 20, "too_long": "error"}, r"reviews\.jsonl:\d+: got \d+ tokens; expected at most 20"),
        ({"data": {"train": "missing.jsonl"}}, "missing.jsonl"),
        ({"model": "not-there"}, "not-there"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_person_can_put_right_is_a_mistake(toy_task: ToyTask, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(Mistake, match=told):
        tunesmith.train(toy_task(**keys))


def test_long_rows_are_counted(toy_task: ToyTask) -> None:
    texts = [f"{number} film great wonderful funny {'moving ' * 60 * (number % 4 == 0)}" for number in range(40)]
    rows = [{"text": text, "label": "positive"} for text in texts]
    Path("long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": "long.jsonl", "validation": 0.0, "test": 0.0}
    for policy, lost in (("truncate", "rows_truncated"), ("drop", "rows_dropped")):
        task = toy_task(data=data, max_length=64, too_long=policy, max_steps=1, output_dir=policy)
        tunesmith.train(task, evaluate=False)
        receipt = json.loads(Path(policy, "receipt.json").read_text())
        assert receipt[lost] == 10
        assert receipt["longest_row"] <= 64

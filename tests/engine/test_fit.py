"""A run: its receipt, its order, where it stops, and that one which was stopped goes on as if it never had been."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import OptimizerName
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import checkpoints, journal
from tunesmith.engine import fit as fit_module
from tunesmith.engine.fit import Fit, Job, fit
from tunesmith.engine.forward import Terms
from tunesmith.engine.loop import Step
from tunesmith.engine.packing import pack
from tunesmith.objectives import sft

# Dropout draws random numbers, validation keeps best weights, and five rows a step go over the end of an epoch.
FULL_LIFE: dict[str, Any] = {
    "method": {"name": "lora", "r": 4, "dropout": 0.2},
    "per_device_train_batch_size": 5,
    "num_train_epochs": 3,
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "eval_steps": 2,
    "save_steps": 3,
    "early_stopping_patience": 4,
}
STEPS = 11  # ceil(3 · 18 / 5)


class Killed(BaseException):
    """Stands in for `kill -9`: nothing of ours may catch it, so nothing more is written."""


def _weights(job: Job) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in job.trained]


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _metrics(job: Job) -> str:
    assert job.folder is not None
    return (job.folder / "metrics.jsonl").read_text(encoding="utf-8")


def _told(done: Fit) -> dict[str, Any]:
    """What a run tells of itself but how long it took and what else the machine held."""
    told = asdict(done) | {"seconds": None, "validation_seconds": None}
    told["receipt"] |= {"memory_estimate_mb": None}
    return told


# --- the receipt


def _row(prompt: int, answer: int, weight: float = 1.0) -> Encoded:
    return Encoded(tuple(range(10, 10 + prompt + answer)), (*[0.0] * prompt, *[weight] * answer))


def test_the_receipt_counts_right(make_job: Callable[..., Job]) -> None:
    rows = [_row(5, 2), _row(9, 4, weight=0.5), _row(3, 0), _row(4, 1), _row(6, 3)]
    receipt = make_job(
        train=rows,
        validation=[_row(2, 1)],
        method={"name": "lora", "r": 2, "target_modules": ["q_proj"]},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        num_train_epochs=1.5,
    ).receipt()
    assert {key: value for key, value in receipt.items() if "sha256" not in key and "m" not in key[:1]} == {
        "rows": 5,
        "validation_rows": 1,
        "tokens": 7 + 13 + 3 + 5 + 9,
        "trained_tokens": 2 + 4 + 0 + 1 + 3,
        "longest_row": 13,
        "rows_a_step": 2,
        "steps": 4,  # ceil(1.5 · 5 / 2)
        "epochs": 1.6,  # 4 · 2 / 5
        "learning_rate": 2e-4,  # LoRA's own
        "trainable_parameters": 2 * (2 * 32 + 2 * 32),  # two layers, A [2, 32] and B [32, 2]
        "pack_tokens": 2048,
        "recompute": False,
    }
    parts = receipt["memory_estimate_mb"]
    assert parts["total"] == pytest.approx(sum(value for key, value in parts.items() if key != "total"), abs=3)


def test_virtual_tokens_count_in_the_longest_row(make_job: Callable[..., Job]) -> None:
    job = make_job(method={"name": "prompt_tuning", "num_virtual_tokens": 7, "init": "random"}, train=[_row(9, 4)])
    assert (job.receipt()["longest_row"], job.receipt()["tokens"]) == (20, 13)


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"num_train_epochs": 2}, 9),  # ceil(2 · 18 / 4)
        ({"num_train_epochs": 0.1}, 1),
        ({"num_train_epochs": 2, "max_steps": 5}, 5),
        ({"num_train_epochs": 2, "max_steps": 50}, 9),
        ({"num_train_epochs": 2, "max_steps": 5, "steps": 3}, 3),
        ({"per_device_train_batch_size": 100}, 1),  # more than there are: all of them
    ],
)
def test_the_number_of_steps(keys: dict[str, Any], steps: int, make_job: Callable[..., Job]) -> None:
    job = make_job(**keys)
    assert job.plan.steps == steps
    assert fit(job).steps == steps


@pytest.mark.parametrize("rows", [[], [_row(3, 0), _row(4, 0)]])
def test_nothing_to_learn_is_refused(rows: list[Encoded], make_job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no token of any row is trained"):
        fit(make_job(tmp_path / "run", train=rows))
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_fit_is_refused_with_what_would(make_job: Callable[..., Job]) -> None:
    with pytest.raises(
        Mistake, match=r"memory: training needs about .* GB .* the budget is 0\.0 GB.*--budget.memory_gb"
    ):
        fit(make_job(budget={"memory_gb": 0.001}))


# --- the order


def test_every_row_comes_once_an_epoch_and_in_an_order_of_its_own(make_job: Callable[..., Job]) -> None:
    job = make_job(**FULL_LIFE)
    taken = [
        tuple(token for start, stop in way for token in batch.tokens[start:stop].tolist())
        for step in range(1, STEPS + 1)
        for batch in job.batches(step)
        for way in batch.ways
    ]
    wanted = sorted(row.ids[:-1] for row in job.rows)
    assert sorted(taken[:18]) != taken[:18]
    assert len(taken) == STEPS * 5
    # Packs sort the rows of a step, so an epoch is compared as a whole; the second begins within a step.
    assert sorted(taken[:15] + [row.ids[:-1] for row in (job.rows[i] for i in job.order(0)[15:])]) == wanted
    assert len({tuple(job.order(epoch)) for epoch in range(3)}) == 3


def test_the_order_follows_from_the_seed(make_job: Callable[..., Job]) -> None:
    assert make_job(seed=1).order(0) == make_job(seed=1).order(0)
    assert make_job(seed=1).order(0) != make_job(seed=2).order(0)


def test_a_step_does_not_depend_on_those_before(make_job: Callable[..., Job]) -> None:
    job, other = make_job(**FULL_LIFE), make_job(**FULL_LIFE)
    forward = [job.batches(step) for step in range(1, STEPS + 1)]
    backward = [other.batches(step) for step in range(STEPS, 0, -1)][::-1]
    assert [b.tokens.tolist() for bs in forward for b in bs] == [b.tokens.tolist() for bs in backward for b in bs]


def test_a_batch_is_a_batch_however_it_is_accumulated(make_job: Callable[..., Job]) -> None:
    """1 × 8 = 8 × 1 = packs of at most 40 tokens, through the whole run."""
    results = []
    for rows, times, pack_tokens in ((8, 1, 2048), (1, 8, 2048), (8, 1, 40)):
        job = make_job(per_device_train_batch_size=rows, gradient_accumulation_steps=times, num_train_epochs=2)
        job.pack_tokens = pack_tokens
        fit(job)
        results.append(_weights(job))
    for other in results[1:]:
        for weight, same in zip(other, results[0], strict=True):
            torch.testing.assert_close(weight, same, rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_run_bit_for_bit(make_job: Callable[..., Job], tmp_path: Path) -> None:
    told = []
    for name in "ab":
        job = make_job(tmp_path / name, **FULL_LIFE)
        told.append((_told(fit(job)), _metrics(job), [weight.tolist() for weight in _weights(job)]))
    assert told[0] == told[1]


# --- what is written down


def test_metrics_have_a_line_a_step_and_a_line_a_validation(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job(tmp_path, eval_steps=2, num_train_epochs=1)
    steps: list[Step] = []
    done = fit(job, steps.append)
    lines = [json.loads(line) for line in _metrics(job).splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2, 3, 4, 4, 5, 5]
    assert [line["loss"] for line in lines if "loss" in line] == [step.loss for step in steps]
    validations = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert [(point["step"], point["validation"]) for point in done.curve] == list(
        zip((2, 4, 5), validations, strict=True)
    )
    assert done.curve[0]["loss"] == (steps[0].loss + steps[1].loss) / 2
    assert (done.tokens, done.steps) == (sum(step.tokens for step in steps), 5)


def test_without_a_folder_nothing_is_written(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(make_job(save_steps=1))
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_was_not_applied_is_told_everywhere(
    make_job: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, eval_steps=5)
    weight = job.trained[0]
    spoil: list[Any] = []

    def after(step: Step) -> None:
        if step.number == 2:
            spoil.append(weight.register_hook(lambda grad: grad * math.nan))  # type: ignore[no-untyped-call]
        elif step.number == 3:
            spoil[0].remove()

    done = fit(job, after)
    (event,) = done.events
    assert event.startswith("step 3: ")
    assert event in capsys.readouterr().err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in _metrics(job).splitlines()]
    assert [line["step"] for line in lines if "event" in line] == [3]
    assert next(line for line in lines if "event" in line)["grad_norm"] is None
    assert math.isfinite(done.curve[0]["loss"])


# --- where it stops


def test_the_best_weights_are_left_in_the_model(make_job: Callable[..., Job]) -> None:
    """At such a rate validation gets worse again; what stays is what validated best."""
    job = make_job(method="full", learning_rate=0.05, lr_scheduler_type="constant", num_train_epochs=4, eval_steps=1)
    seen: dict[int, list[Tensor]] = {}
    done = fit(job, lambda step: seen.update({step.number: _weights(job)}))
    losses = {int(point["step"]): point["validation"] for point in done.curve}
    assert done.best_step == min(losses, key=lambda step: losses[step]) < done.steps
    assert done.best_loss == losses[done.best_step]
    assert _same(_weights(job), seen[done.best_step])
    assert job.validation_loss() == done.best_loss


def test_without_validation_rows_the_last_weights_stay(make_job: Callable[..., Job]) -> None:
    job = make_job(validation=[], eval_steps=1, early_stopping_patience=1)
    last: list[list[Tensor]] = []
    done = fit(job, lambda step: last.append(_weights(job)))
    assert _same(_weights(job), last[-1])
    assert (done.curve, done.best_step, done.steps) == ([], 0, 5)


def test_it_stops_when_validation_stands_still(make_job: Callable[..., Job]) -> None:
    keys = {"method": "full", "learning_rate": 0.05, "num_train_epochs": 9, "eval_steps": 1}
    done = fit(make_job(**keys, early_stopping_patience=3))
    assert done.steps == done.best_step + 3 < 41
    assert done.stopped == "no gain in 3 validations"


def test_it_stops_at_the_deadline_and_says_so(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(fit_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    job = make_job(tmp_path, num_train_epochs=9, seconds=4.0, eval_steps=100)
    done = fit(job)  # the clock is read once at the beginning and once a step
    assert (done.steps, done.stopped) == (4, "time: 4 s were given")
    assert [point["step"] for point in done.curve] == [4]  # what it leaves has been validated
    assert fit(make_job(num_train_epochs=9, steps=2, seconds=2.0)).stopped == ""  # it was the last step anyway


# --- and goes on


@pytest.fixture(scope="module")
def unbroken(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


def _unbroken(make_job: Callable[..., Job], folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """The run that nothing stopped, made once."""
    if not known:
        job = make_job(folder / "unbroken", **FULL_LIFE)
        done = fit(job)
        assert done.stopped == ""
        assert 0 < done.best_step < STEPS  # so that the best weights travel through checkpoints
        known |= {"told": _told(done), "metrics": _metrics(job), "weights": _weights(job)}
    return known


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    at: int, make_job: Callable[..., Job], tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    whole = _unbroken(make_job, tmp_path, unbroken)
    folder = tmp_path / "run"

    def kill(step: Step) -> None:
        if step.number == at:
            raise Killed

    with pytest.raises(Killed):
        fit(make_job(folder, **FULL_LIFE), kill)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 99, "lo')  # a line it was about to write
    latest = checkpoints.latest(folder / "checkpoints")
    assert (latest.name if latest else None) == (f"step-{at // 3 * 3:06d}" if at >= 3 else None)

    job = make_job(folder, **FULL_LIFE)
    torch.manual_seed(1000 + at)  # whatever was drawn meanwhile
    if not latest:
        torch.manual_seed(job.project.seed)
        job = make_job(folder, **FULL_LIFE)
    taken: list[int] = []
    done = fit(job, lambda step: taken.append(step.number))
    assert taken == list(range(at // 3 * 3 + 1, STEPS + 1))
    assert _metrics(job) == whole["metrics"]
    assert _same(_weights(job), whole["weights"])
    assert _told(done) == whole["told"]


def test_a_run_may_be_killed_again_and_again(
    make_job: Callable[..., Job], tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    whole = _unbroken(make_job, tmp_path, unbroken)
    folder = tmp_path / "run"
    for at in (4, 5, 7, 10):

        def kill(step: Step, at: int = at) -> None:
            if step.number == at:
                raise Killed

        with pytest.raises(Killed):
            fit(make_job(folder, **FULL_LIFE), kill)
    job = make_job(folder, **FULL_LIFE)
    fit(job)
    assert _metrics(job) == whole["metrics"]
    assert _same(_weights(job), whole["weights"])


def test_a_resumed_run_packs_as_it_did_though_memory_is_another(make_job: Callable[..., Job], tmp_path: Path) -> None:
    """Sums over other packs would be rounded otherwise."""

    def kill(step: Step) -> None:
        if step.number == 5:
            raise Killed

    def job_with_little_memory(folder: Path) -> Job:
        job = make_job(folder, **FULL_LIFE)
        job.pack_tokens = 24
        return job

    whole = job_with_little_memory(tmp_path / "whole")
    fit(whole)
    with pytest.raises(Killed):
        fit(job_with_little_memory(tmp_path / "killed"), kill)
    resumed = make_job(tmp_path / "killed", **FULL_LIFE)
    fit(resumed)
    assert _same(_weights(resumed), _weights(whole))


@pytest.mark.parametrize(
    ("at", "optimizer"),
    [(4, "adamw"), (7, "adamw"), (10, "adamw"), (4, "lion"), (7, "muon"), (7, "adafactor"), (4, "sgd")],
)
def test_a_run_whose_layers_wake_one_by_one_goes_on_as_if_it_had_not_been_killed(
    at: int, optimizer: str, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """The lower layer rests until step 6: in the checkpoint of step 3 the optimizer knows nothing of it."""
    method = {"name": "gradual_unfreezing", "unfreeze_every": 5}
    keys = {**FULL_LIFE, "method": method, "lr_scheduler_type": None, "learning_rate": 0.01, "optimizer": optimizer}
    whole = make_job(tmp_path / "whole", **keys)
    fit(whole)

    def kill(step: Step) -> None:
        if step.number == at:
            raise Killed

    with pytest.raises(Killed):
        fit(make_job(tmp_path / "killed", **keys), kill)
    resumed = make_job(tmp_path / "killed", **keys)
    fit(resumed)
    assert _metrics(resumed) == _metrics(whole)
    assert _same(_weights(resumed), _weights(whole))


def test_what_rests_stays_as_it_is_and_then_learns(make_job: Callable[..., Job]) -> None:
    job = make_job(method={"name": "gradual_unfreezing", "unfreeze_every": 2}, validation=[], steps=4)
    low, top = (job.prepared.model.model.layers[place].mlp.up_proj.weight for place in (0, 1))
    seen = [(low.detach().clone(), top.detach().clone())]
    fit(job, lambda _: seen.append((low.detach().clone(), top.detach().clone())))
    moved = [tuple(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(seen)]
    assert moved == [(False, True), (False, True), (True, True), (True, True)]
    assert all(parameter.requires_grad for parameter in job.prepared.model.parameters())


def test_below_the_lowest_weight_that_learns_nothing_is_computed_backward(make_job: Callable[..., Job]) -> None:
    job = make_job(method={"name": "gradual_unfreezing", "unfreeze_every": 1}, validation=[], steps=2)
    job.receipt()  # counting memory passes through the layers, too
    seen: list[bool] = []
    top = job.prepared.model.model.layers[1]
    top.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    fit(job)
    assert seen[-1]
    assert seen[-len(job.batches(2)) - 1] is False  # the step before the lower layer woke


def test_the_schedule_is_the_methods_own_unless_another_is_asked_for(make_job: Callable[..., Job]) -> None:
    shapes = [
        make_job(method=name, **keys).plan.lr_scheduler_type
        for name, keys in (
            ("lora", {}),
            ("gradual_unfreezing", {}),
            ("gradual_unfreezing", {"lr_scheduler_type": "linear"}),
        )
    ]
    assert shapes == ["cosine", "slanted_triangular", "linear"]


def test_a_run_that_had_stopped_early_stays_stopped(make_job: Callable[..., Job], tmp_path: Path) -> None:
    keys = {"method": "full", "learning_rate": 0.05, "num_train_epochs": 9, "eval_steps": 1}
    keys |= {"save_steps": 1, "early_stopping_patience": 3}
    job = make_job(tmp_path, **keys)
    done, metrics = fit(job), _metrics(job)
    again = make_job(tmp_path, **keys)
    assert _told(fit(again)) == _told(done)
    assert _metrics(again) == metrics
    assert _same(_weights(again), _weights(job))


@pytest.mark.parametrize("inside", [False, True], ids=["between steps", "inside a step"])
def test_ctrl_c_waits_for_the_step_and_keeps_a_checkpoint(
    inside: bool,
    make_job: Callable[..., Job],
    tmp_path: Path,
    unbroken: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = _unbroken(make_job, tmp_path, unbroken)
    before = signal.getsignal(signal.SIGINT)
    job = make_job(tmp_path / "run", **FULL_LIFE)

    def press(step: Step) -> None:
        if step.number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    if inside:
        weight = job.trained[0]
        calls = iter(range(1, 100))
        weight.register_hook(lambda grad: os.kill(os.getpid(), signal.SIGINT) if next(calls) == 4 else None)  # type: ignore[no-untyped-call]
    with pytest.raises(KeyboardInterrupt):
        fit(job, None if inside else press)
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopping after this step" in capsys.readouterr().err
    latest = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert latest is not None
    assert latest.name == "step-000004"

    job = make_job(tmp_path / "run", **FULL_LIFE)
    fit(job)
    assert _metrics(job) == whole["metrics"]
    assert _same(_weights(job), whole["weights"])


def test_a_second_ctrl_c_does_not_wait(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job(tmp_path, **FULL_LIFE)

    def press_twice(grad: Tensor) -> None:
        # The handlers themselves: of two signals that wait at once the system makes one.
        for _ in range(2):
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)

    job.trained[0].register_hook(press_twice)  # type: ignore[no-untyped-call]
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    assert checkpoints.latest(tmp_path / "checkpoints") is None  # nothing whole there is to keep
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train": [_row(5, 2)] * 18}, "rows"),
        ({"validation": [_row(5, 3)]}, "validation_rows: 6 there, 1 now"),
        ({"validation": [_row(5, 3)] * 6}, "validation"),
        ({"num_train_epochs": 4}, "steps"),
        ({"learning_rate": 1e-3}, "learning_rate: 0.05 there, 0.001 now"),
        ({"optimizer": "sgd"}, "optimizer: adamw there, sgd now"),
        ({"seed": 5}, "seed: 0 there, 5 now"),
        ({"method": {"name": "lora", "r": 4, "dropout": 0.3}}, "method"),
        ({"method": "bitfit"}, "method|trainable_parameters"),
    ],
)
def test_a_folder_with_another_run_is_refused(
    changed: dict[str, Any], named: str, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    short = FULL_LIFE | {"save_steps": 1}

    def kill(step: Step) -> None:
        raise Killed

    with pytest.raises(Killed):
        fit(make_job(tmp_path, **short), kill)
    other = make_job(tmp_path, **short | changed)
    before = _weights(other)
    with pytest.raises(Mistake, match=f"other .*({named}).*choose another output_dir"):
        fit(other)
    assert _same(_weights(other), before)


@pytest.mark.parametrize("optimizer", sorted(set(get_args(OptimizerName)) - {"adamw8bit"}))
def test_every_optimizer_goes_on_as_if_it_had_not_been_killed(
    optimizer: str, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    def kill(step: Step) -> None:
        if step.number == 8:
            raise Killed

    keys = {**FULL_LIFE, "optimizer": optimizer, "learning_rate": 0.001, "method": "full"}
    whole, killed = make_job(tmp_path / "whole", **keys), make_job(tmp_path / "killed", **keys)
    fit(whole)
    with pytest.raises(Killed):
        fit(killed, kill)
    resumed = make_job(tmp_path / "killed", **keys)
    fit(resumed)
    assert _metrics(resumed) == _metrics(whole)
    assert _same(_weights(resumed), _weights(whole))


def test_what_is_large_is_put_aside_on_disk_and_the_run_is_the_same(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best weights are an earlier step's, so they come back from there; and nothing stays behind."""
    small = make_job(tmp_path / "small", **FULL_LIFE)
    done, in_memory = fit(small), small.trained_bytes
    monkeypatch.setattr(fit_module, "LARGE_MB", 0)
    large = make_job(tmp_path / "large", **FULL_LIFE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen: list[set[str]] = []
    assert fit(large, lambda step: seen.append(_names(tmp_path / "large" / ".aside"))).best_step == done.best_step
    assert seen[0] == {"good.safetensors"}
    assert seen[-1] == {"good.safetensors", "best.safetensors"}
    homeless = make_job(**FULL_LIFE)
    fit(homeless)
    assert _same(_weights(large), _weights(small))
    assert _same(_weights(homeless), _weights(small))
    assert not (tmp_path / "large" / ".aside").exists()
    assert _names(tmp_path / "temporary") == set()
    assert large.trained_bytes < 0.6 * in_memory  # two numbers fewer of five, beside the spare gradient


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("large_mb", [200, 0])
def test_a_resumed_run_goes_back_to_the_same_state_when_the_loss_leaps(
    large_mb: int, make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are made at 7, 14 and 21, beside the states kept at 5, 10, 15 and 20; in memory, or on disk."""
    monkeypatch.setattr(fit_module, "KEEP_EVERY", 5)
    monkeypatch.setattr(fit_module, "LARGE_MB", large_mb)
    keys = {"num_train_epochs": 6, "learning_rate": 0.01, "save_steps": 7}
    usual = sft.loss
    monkeypatch.setattr(
        sft, "loss", lambda terms, batch, config: usual(_times(terms, 100 if 399 in batch.tokens else 1), batch, config)
    )

    def job_with_a_leap(folder: Path) -> Job:
        job = make_job(folder, **keys)
        batches = job.batches
        leap = [pack([Encoded((399, 5, 6), (0.0, 1.0, 1.0))])]
        job.batches = lambda step: leap if step == 24 else batches(step)  # type: ignore[method-assign]
        return job

    def kill(step: Step) -> None:
        if step.number == 23:
            raise Killed

    whole = job_with_a_leap(tmp_path / "whole")
    (event,) = fit(whole).events
    assert event.endswith("back to the weights of step 21")
    with pytest.raises(Killed):
        fit(job_with_a_leap(tmp_path / "killed"), kill)
    resumed = job_with_a_leap(tmp_path / "killed")
    fit(resumed)
    assert _metrics(resumed) == _metrics(whole)
    assert _same(_weights(resumed), _weights(whole))


def _times(terms: Terms, factor: int) -> Terms:
    return Terms(terms.logprobs * factor, terms.correct)


def test_checkpoints_come_every_two_minutes_unless_told_otherwise(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the loop keeps a state to go back to: every four steps here, of ten seconds each."""
    monkeypatch.setattr(fit_module, "KEEP_EVERY", 4)
    now = [0.0]
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen: list[str] = []

    def ten_seconds(step: Step) -> None:
        now[0] += 10
        seen.extend(path.name for path in (tmp_path / "checkpoints").glob("step*") if path.name not in seen)

    fit(make_job(tmp_path, num_train_epochs=8), ten_seconds)
    assert seen == ["step-000016", "step-000028"]  # at step n it is 10 (n - 1) seconds


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    make_job: Callable[..., Job], tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    whole = _unbroken(make_job, tmp_path, unbroken)
    folder = tmp_path / "run"

    def kill(step: Step) -> None:
        if step.number == 8:
            raise Killed

    with pytest.raises(Killed):
        fit(make_job(folder, **FULL_LIFE), kill)
    (folder / "checkpoints" / "step-000006" / "optimizer.safetensors").write_bytes(b"")
    job = make_job(folder, **FULL_LIFE)
    taken: list[int] = []
    fit(job, lambda step: taken.append(step.number))
    assert taken[0] == 4
    assert _metrics(job) == whole["metrics"]
    assert _same(_weights(job), whole["weights"])


def _first_token_drawn(row: Encoded, config: object, seed: int) -> Encoded:
    """An objective's `rows`: the first token becomes one drawn from the seed."""
    return Encoded((10 + seed % 50, *row.ids[1:]), row.weights)


def test_an_objective_shows_rows_anew_each_epoch_and_the_same_when_repeated(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "rows", _first_token_drawn, raising=False)
    job, again = make_job(), make_job()
    firsts = [[job.row(epoch, place).ids[0] for place in range(18)] for epoch in range(2)]
    assert firsts[0] != firsts[1]
    assert len(set(firsts[0])) > 9
    assert firsts == [[again.row(epoch, place).ids[0] for place in range(18)] for epoch in range(2)]
    assert [row.ids for row in job.shown] == [job.row(0, place).ids for place in range(18)]
    packed = torch.cat([batch.tokens for batch in job.batches(1)]).tolist()
    assert {firsts[0][place] for place in job.order(0)[: job.rows_a_step]} <= set(packed)
    assert job.validation_loss() == job.validation_loss()

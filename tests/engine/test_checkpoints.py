"""Checkpoints are whole or absent, hold no pickle, and give back bit for bit what was put in."""

from __future__ import annotations

import errno
import io
import json
import pickletools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.core.errors import Mistake
from tunesmith.engine import aside, checkpoints, optimizers
from tunesmith.engine.aside import Aside
from tunesmith.engine.fit import Job
from tunesmith.engine.loop import Guard
from tunesmith.methods._attachment import attached

FILES = {"weights.safetensors", "optimizer.safetensors", "state.json"}


OPTIMIZERS = [("adamw", 0.9), ("adam", 0.9), ("sgd", 0.9), ("sgd", 0.0)]
OPTIMIZERS += [(name, 0.9) for name in ("adafactor", "lion", "muon")]


def _ones() -> Aside:
    best = Aside()
    best.put({"a": torch.ones(2)})
    return best


def _guard(job: Job, optimizer: str = "adamw", steps: int = 3, seed: int = 0, momentum: float = 0.9) -> Guard:
    """A guard whose weights and optimizer have moved by themselves, with some losses remembered."""
    trained = job.trained
    made = optimizers.make(optimizer, trained, learning_rate=1e-2, momentum=momentum)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
    guard = Guard(trained, made)
    guard.losses.extend([1.5, 1 / 3])
    return guard


def _state(guard: Guard) -> list[Tensor]:
    """Weights and optimizer, flat, in order."""
    slots = guard.optimizer.state_dict()["state"]
    moments = [torch.as_tensor(value) for key in sorted(slots) for _, value in sorted(slots[key].items())]
    return [parameter.detach().clone() for parameter in guard.parameters] + [moment.clone() for moment in moments]


@pytest.mark.parametrize("method", ["lora", "full", "bitfit", "prompt_tuning"])
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("optimizer", "momentum"), OPTIMIZERS)
def test_what_was_saved_comes_back(
    method: str, optimizer: str, momentum: float, on_disk: bool, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    settings = {"name": method, "init": "random"} if method == "prompt_tuning" else {"name": method}
    job = make_job(method=settings)
    guard = _guard(job, optimizer, momentum=momentum)
    best = Aside(tmp_path / "best" if on_disk else None)
    best.put({name: parameter.detach() + 1 for name, parameter in checkpoints.trained(job.prepared.model)})
    told = {"note": "é", "numbers": [0.1, 1 / 3]}
    torch.manual_seed(77)
    path = checkpoints.save(tmp_path, 7, job.prepared.model, guard, told, best)
    drawn = torch.rand(3)

    other = make_job(method=settings)
    other_guard = _guard(other, optimizer, steps=0, momentum=momentum)
    other_guard.losses.clear()
    assert checkpoints.latest(tmp_path) == path
    assert checkpoints.state(path) == told
    other_best = Aside(tmp_path / "other" if on_disk else None)
    assert checkpoints.load(path, other.prepared.model, other_guard, other_best) == 7
    for ours, theirs in zip(_state(other_guard), _state(guard), strict=True):
        assert torch.equal(ours, theirs)
    put, back = dict(best.items()), dict(other_best.items())
    assert put.keys() == back.keys()
    assert all(torch.equal(back[name], put[name]) for name in put)
    assert torch.equal(torch.rand(3), drawn)  # dropout goes on where it was
    assert list(other_guard.losses) == [1.5, 1 / 3]
    assert other_guard.kept == 7

    # And both go on alike.
    for each in (guard, other_guard):
        for parameter in each.parameters:
            parameter.grad = torch.ones_like(parameter)
        each.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(_state(guard), _state(other_guard), strict=True))


def test_what_a_method_remembers_comes_back(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job, other = make_job(), make_job()
    there, here = attached(job.prepared.model), attached(other.prepared.model)
    assert there is not None
    assert here is not None
    there.memory["importance"] = torch.arange(4.0)
    path = checkpoints.save(tmp_path, 1, job.prepared.model, _guard(job), {})
    assert checkpoints.latest(tmp_path) == path
    checkpoints.load(path, other.prepared.model, _guard(other), Aside())
    assert here.memory.keys() == {"importance"}
    assert torch.equal(here.memory["importance"], torch.arange(4.0))


def test_no_file_is_a_pickle(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job()
    path = checkpoints.save(tmp_path, 1, job.prepared.model, _guard(job), {}, _ones())
    assert {file.name for file in path.iterdir()} == FILES | {"best.safetensors"}
    for file in path.iterdir():
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        else:
            with safe_open(file, framework="pt") as tensors:
                assert list(tensors.keys())
        content = file.read_bytes()
        assert not content.startswith(b"PK")  # a zip, as torch.save makes
        with pytest.raises(ValueError):
            pickletools.dis(content, out=io.StringIO())


def test_the_last_two_are_kept(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job()
    guard = _guard(job)
    for step in (9, 10, 99, 100, 101):
        checkpoints.save(tmp_path, step, job.prepared.model, guard, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000100", "step-000101"]
    assert checkpoints.latest(tmp_path) == tmp_path / "step-000101"


def test_none_is_the_latest_of_nothing(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "missing") is None
    (tmp_path / ".step-000004.0123456789ab.partial").mkdir()  # what a killed process leaves
    assert checkpoints.latest(tmp_path) is None


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_disk_that_fills_up_leaves_the_earlier_ones_and_nothing_else(
    failing: int, make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    guard = _guard(job)
    first = checkpoints.save(tmp_path, 1, job.prepared.model, guard, {})
    calls = iter(range(1, 100))
    save_file = checkpoints.save_file

    def full(tensors: Any, path: Path) -> None:
        if next(calls) == failing:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    monkeypatch.setattr(aside, "save_file", full)
    with pytest.raises(Mistake, match=r"disk is full.*output_dir"):
        checkpoints.save(tmp_path, 2, job.prepared.model, guard, {}, _ones())
    assert list(tmp_path.iterdir()) == [first]
    assert {file.name for file in first.iterdir()} == FILES


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str, name: str, make_job: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    guard = _guard(job)
    first = checkpoints.save(tmp_path, 1, job.prepared.model, guard, {})
    file = checkpoints.save(tmp_path, 2, job.prepared.model, guard, {}) / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        noise = random.Random(0).randbytes(len(content))
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": noise}[damage])
    assert checkpoints.latest(tmp_path) == first
    assert "step-000002: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("other", [{"name": "bitfit"}, {"name": "lora", "r": 4}])
def test_another_method_is_refused_and_nothing_changed(
    other: dict[str, Any], make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job()
    path = checkpoints.save(tmp_path, 1, job.prepared.model, _guard(job), {})
    wrong = make_job(method=other)
    guard = _guard(wrong, steps=1)
    before = _state(guard)
    with pytest.raises(Mistake, match="another model or method"):
        checkpoints.load(path, wrong.prepared.model, guard, Aside())
    assert all(torch.equal(a, b) for a, b in zip(_state(guard), before, strict=True))

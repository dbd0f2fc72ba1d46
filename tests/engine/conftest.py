"""Runs at toy size: a project, and a job with a method attached to a fresh toy model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.config import Data, Project, choose
from tunesmith.core.records import Encoded
from tunesmith.engine import native
from tunesmith.engine.fit import Job
from tunesmith.engine.prepare import prepare


def rows(count: int, seed: int = 0) -> list[Encoded]:
    """Prompts of 4 to 12 tokens, each answered by its last token plus one, twice, and an end: it can be learned."""
    generator = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = tuple(generator.randrange(10, 60) for _ in range(generator.randrange(4, 13)))
        answer = (prompt[-1] + 1, prompt[-1] + 1, 2)
        made.append(Encoded(prompt + answer, (0.0,) * len(prompt) + (1.0,) * 3))
    return made


@pytest.fixture(params=["kernels", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By whom all is computed: our kernels, where there is a compiler, or torch alone."""
    if request.param == "torch":
        monkeypatch.setattr(native, "kernels", lambda dtype: None)
    elif native.kernels(torch.float32) is None:
        pytest.skip("no compiler")
    return str(request.param)


@pytest.fixture
def make_rows() -> Callable[..., list[Encoded]]:
    return rows


@pytest.fixture
def make_project() -> Callable[..., Project]:
    """A project by its keys; `method` is a name, or a dict with its settings."""

    def make(**keys: Any) -> Project:
        method = keys.pop("method", "lora")
        method = {"name": method} if isinstance(method, str) else method
        return Project(
            model="toy",
            task=choose("tasks", "generation"),
            data=Data(train="rows.jsonl"),
            method=choose("methods", **method),
            objective=choose("objectives", "sft"),
            **{"per_device_train_batch_size": 4, **keys},
        )

    return make


@pytest.fixture
def make_job(toy_model: Callable[..., Any], make_project: Callable[..., Project]) -> Callable[..., Job]:
    """A job on a fresh toy model, in float32; the same keys give the same job."""

    def make(
        folder: Path | None = None,
        *,
        train: list[Encoded] | None = None,
        validation: list[Encoded] | None = None,
        seconds: float | None = None,
        steps: int | None = None,
        precision: Any = "float32",
        kind: str = "llama",
        **keys: Any,
    ) -> Job:
        project = make_project(**keys)
        prepared = prepare(toy_model(kind), precision)
        torch.manual_seed(project.seed)
        method = project.method
        method.module.attach(prepared.model, method.config)
        prefix = method.module.prefix_tokens(prepared.model) if hasattr(method.module, "prefix_tokens") else ()
        return Job(
            prepared,
            project,
            rows(18) if train is None else train,
            rows(6, seed=1) if validation is None else validation,
            prefix,
            folder,
            steps=steps,
            seconds=seconds,
        )

    return make

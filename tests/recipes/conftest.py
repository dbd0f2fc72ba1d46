"""A job that a toy model can learn in seconds: short reviews whose adjective tells the label."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.evaluation import forgetting

_WORDS = {
    "positive": ("wonderful", "funny", "moving", "great"),
    "negative": ("dull", "bad", "broken", "weak"),
}
ToyTask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 rows with a text and a label, a file that is only to be read."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.jsonl"
    rows = (
        {"text": f"the {thing} was {word} {number}", "label": label}
        for thing, (label, words), number in itertools.product(
            ("film", "plot", "acting", "dialogue"), _WORDS.items(), range(8)
        )
        for word in words
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def toy_task(toy_folder: Path, reviews: Path) -> ToyTask:
    """The keys of a task file for the reviews; what is given lies over them: ``toy_task(max_steps=3)``."""

    def make(**keys: Any) -> dict[str, Any]:
        return {
            "model": str(toy_folder),
            "task": {
                "name": "classification",
                "instruction": "positive or negative?",
                "labels": ["negative", "positive"],
            },
            "data": {"train": str(reviews), "validation": 0.2, "test": 0.2},
            "method": {"name": "lora", "r": 8, "alpha": 16},
            "learning_rate": 1e-2,
            "num_train_epochs": 2,
            "max_length": 256,
            "precision": "float32",
            "output_dir": "runs/toy",
            **keys,
        }

    return make


@pytest.fixture(autouse=True, scope="module")
def few_general_texts() -> Iterator[None]:
    """Forgetting is measured on the first few general prompts and texts; `tests/evaluation` takes all of them."""
    column = forgetting._column
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "_column", lambda file, key: column(file, key)[:8])
        yield


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    return tmp_path

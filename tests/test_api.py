"""`import tunesmith`: what the commands do, as functions, and the page that shows them."""

from __future__ import annotations

import inspect
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.models import source
from tunesmith.models.catalog import catalog

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
TASK = {"model": "toy", "task": "classification", "data": {"train": "rows.csv"}}


def test_the_import_is_light() -> None:
    heavy = "torch transformers peft datasets sklearn scipy pandas matplotlib numpy sqlalchemy pydantic"
    code = f"import sys, tunesmith; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_is_named_is_there_and_says_what_it_does() -> None:
    for name in tunesmith.__all__:
        assert inspect.getdoc(getattr(tunesmith, name)), name


def test_the_page_has_every_function_and_its_own_arguments() -> None:
    for name in set(tunesmith.__all__) - {"Mistake"}:
        [row] = re.findall(rf"^\| `tunesmith\.{name}\((.*?)\)`", PAGE, re.MULTILINE)
        shown = [part.strip().rstrip("=") for part in row.split(",")]
        assert set(shown) <= {*inspect.signature(getattr(tunesmith, name)).parameters, "task", "model"}, name
        own = {
            key
            for key, one in inspect.signature(getattr(tunesmith, name)).parameters.items()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        }
        assert own <= set(shown), name


def test_a_task_is_a_file_or_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text("model: toy\ntask: classification\ndata: {train: rows.csv}\n")
    read = tunesmith.load(file, method__r=4, learning_rate=1e-3, rungs=["zero_shot"])
    assert isinstance(read, Project)
    assert (read.method.config.r, read.learning_rate, read.rungs) == (4, 1e-3, ["zero_shot"])
    assert tunesmith.load(str(file)) == tunesmith.load(TASK)
    assert tunesmith.load(TASK, method__name="full").method.name == "full"
    assert TASK == {"model": "toy", "task": "classification", "data": {"train": "rows.csv"}}


def test_mistakes_of_a_task_come_together() -> None:
    with pytest.raises(Mistakes) as told:
        tunesmith.load({**TASK, "sede": 1}, method__name="loar")
    assert isinstance(told.value, Mistake)
    assert "did you mean 'seed'?" in str(told.value)
    assert "did you mean 'lora'?" in str(told.value)


def reviews(path: Path) -> None:
    """A table that a toy can learn from."""
    words = {"positive": ("wonderful", "funny", "moving", "great"), "negative": ("dull", "bad", "broken", "weak")}
    rows = [
        f"the {thing} was {word} {number},{label}\n"
        for thing in ("film", "plot", "acting")
        for label, several in words.items()
        for word in several
        for number in range(6)
    ]
    random.Random(0).shuffle(rows)
    path.write_text("review,sentiment\n" + "".join(rows))


# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_page_runs(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    # The toy stands where the model of the page would have been pulled to.
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    shutil.copytree(toy_folder, source._folder_of(catalog()["smollm2-135m-instruct"]))
    reviews(Path("reviews.csv"))
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    told = capsys.readouterr().out
    assert "Use " in told
    [said] = re.findall(r"print\(mistake\)  # (.+)", PAGE)
    assert said in told
    assert Path("runs/lora-8/artifact/adapter_model.safetensors").exists()
    assert names["prompt"]["setting"] == {"split": "test", "shots": 4, "how": "balanced", "calibrate": "contextual"}
    assert names["adapter"]["n"] == names["prompt"]["n"]

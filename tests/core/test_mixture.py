from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.core.config import Project, load_project
from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.mixture import Mixture, load

TREE = {
    "model": "toy",
    "tasks": [
        {
            "name": "films",
            "task": {"name": "classification", "labels": ["bad", "good"]},
            "data": {"train": "films.csv"},
        },
        {"name": "notes", "task": "summarization", "data": {"train": "notes.csv"}},
    ],
    "method": {"name": "lora", "r": 4},
    "mixture": "temperature",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "films.csv").write_text("text,label\n")
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


def read(file: Any, overrides: dict[str, Any] | None = None) -> Mixture:
    found = load(file, overrides)
    assert isinstance(found, Mixture)
    return found


def test_each_task_is_a_project_of_its_own_with_what_all_share(file: Path) -> None:
    found = read(file)
    assert list(found.tasks) == ["films", "notes"]
    films, notes = found.tasks.values()
    assert (films.task.name, notes.task.name) == ("classification", "summarization")
    assert films.method == notes.method
    assert films.method.config.r == 4
    assert films.data.train == str(file.parent / "films.csv"), "files lie beside the task file"
    assert (found.mixing.mixture, found.mixing.temperature, found.mixing.adapters) == ("temperature", 2.0, "one")


def test_what_is_typed_goes_to_all_tasks_and_to_the_mixing(file: Path) -> None:
    typed = {"mixture": "equal", "adapters": "each", "size_limit": "50", "method.r": "2", "data.max_rows": "9"}
    found = read(file, typed)
    assert found.mixing.model_dump() == {"mixture": "equal", "temperature": 2.0, "size_limit": 50, "adapters": "each"}
    assert [(one.method.config.r, one.data.max_rows) for one in found.tasks.values()] == [(2, 9), (2, 9)]


def test_one_task_of_the_file_is_a_task_file(file: Path) -> None:
    for found in (load(file, {"task": "notes"}), load_project(file, {"task": "notes", "max_steps": "3"})):
        assert isinstance(found, Project)
        assert (found.task.name, found.data.train) == ("summarization", "notes.csv")
    with pytest.raises(Mistake, match=r"there is no task .note. in .*; did you mean .notes."):
        load_project(file, {"task": "note"})
    with pytest.raises(Mistake, match="has the tasks films, notes; expected one; type --task films"):
        load_project(file)


def test_a_file_of_one_task_is_a_project(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("model: toy\ntask: classification\ndata: {train: a.csv}\n")
    assert load(path, {"task": "ner"}) == load_project(path, {"task": "ner"})


def test_written_out_and_read_again_it_is_the_same(file: Path, tmp_path: Path) -> None:
    found = read(file)
    (tmp_path / "config.yaml").write_text(found.to_yaml())
    assert read(tmp_path / "config.yaml").as_dict() == found.as_dict() == read(TREE | found.as_dict()).as_dict()


def test_all_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(
        "model: toy\n"
        "tasks:\n"
        "  - name: films\n"
        "    task: {name: classification, instruktion: x}\n"
        "    data: {train: a.csv}\n"
        "  - name: notes\n"
        "    task: summarisation\n"
        "learning_rat: 1\n"
        "mixture: equl\n"
    )
    with pytest.raises(Mistakes) as caught:
        load(path)
    told = "\n".join(line.removeprefix(f"{path}:") for line in caught.value.lines)
    assert "4: task.instruktion: unknown key; did you mean 'instruction'?" in told
    assert "7: tasks: there is no 'summarisation'; did you mean 'summarization'?" in told
    assert "6: data is missing" in told
    assert "9: mixture: got 'equl'; expected 'proportional', 'equal' or 'temperature'" in told
    assert told.count("8: learning_rat: unknown key") == 1, "what is shared is told once"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"tasks": {"films": {}}}, "tasks: got .*; expected a list of name, task and data"),
        ({"tasks": []}, "expected a list"),
        ({"tasks": TREE["tasks"][:1] * 2}, "films is the name of another task"),  # type: ignore[index]
        ({"tasks": [{"name": "a/b"}]}, "name: got 'a/b'; expected letters, digits"),
        ({"tasks": [{"task": "ner"}]}, "name: got None"),
        ({"tasks": [{"name": "a", "tusk": "ner"}]}, "tusk: unknown key of a task; did you mean 'task'"),
        ({"task": "ner"}, "task: stands beside `tasks:`; expected it with each of them"),
    ],
)
def test_a_list_of_tasks_that_is_none(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(Mistake, match=told):
        load(TREE | keys)

"""The registry: the folder is the list."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.core import rooms
from tunesmith.core.errors import Mistake


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A house of one room, `tools`."""
    room = tmp_path / "tools"
    room.mkdir()
    (room / "hammer.py").write_text('"""Drives nails.\n\nAnd more.\n"""\nraise RuntimeError("imported")\n')
    (room / "awl.py").write_text("sharp = True\n")
    (room / "_handles.py").write_text('"""Machinery."""\n')
    (room / "__init__.py").write_text('"""The contract."""\n')
    (room / "notes.yaml").touch()
    monkeypatch.setattr(rooms, "_HOUSE", tmp_path)
    for cached in (rooms.names, rooms.summary):
        cached.cache_clear()
    yield room
    for cached in (rooms.names, rooms.summary):
        cached.cache_clear()


def test_every_file_without_an_underscore_is_a_choice(house: Path) -> None:
    assert rooms.names("tools") == ("awl", "hammer")


def test_a_summary_is_the_first_line_read_without_importing(house: Path) -> None:
    assert rooms.summary("tools", "hammer") == "Drives nails."
    assert rooms.summary("tools", "awl") == ""


def test_a_choice_is_imported_by_name_hyphens_or_not() -> None:
    assert rooms.choice("tasks", "question-answering").__name__ == "tunesmith.tasks.question_answering"
    assert rooms.choice("tasks", "question_answering") is rooms.choice("tasks", "question-answering")


@pytest.mark.parametrize("name", ["_judge", "__init__", "clasification", "../core/errors", ""])
def test_what_is_no_choice_is_refused(name: str) -> None:
    with pytest.raises(Mistake, match=f"tasks: there is no '{name}'; "):
        rooms.choice("tasks", name)


def test_a_misspelt_choice_is_told_the_nearest() -> None:
    with pytest.raises(Mistake, match="did you mean 'classification'"):
        rooms.choice("tasks", "clasification")


def test_listing_imports_no_choice() -> None:
    script = (
        "import sys; from tunesmith.core import rooms; rooms.names('methods'); rooms.summary('methods', 'lora');"
        "sys.exit('tunesmith.methods' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

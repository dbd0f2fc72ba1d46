"""Reading YAML with its lines; what a file that cannot be read is told; words of the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.origin import Origin, from_shell, read_yaml


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_key_has_its_line() -> None:
    Path("a.yaml").write_text("# first\na:\n  b: 1\n  c: {d: 2,\n    e: 3}\nf: [{g: 1}]\n")
    tree, origin = read_yaml(Path("a.yaml"))
    assert tree == {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": [{"g": 1}]}
    assert origin.lines == {
        ("a",): 2, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", "d"): 4, ("a", "c", "e"): 5, ("f",): 6,
            ("f", "0"): 6, ("f", "0", "g"): 6,
    }  # fmt: skip
    assert origin.repeated == []
    assert origin.of(("a", "c", "e")) == "a.yaml:5"
    assert origin.of(("a", "x", "y")) == "a.yaml:2"
    assert origin.of(("x",)) == "a.yaml"


def test_what_was_typed_is_named_by_its_option_and_comes_last() -> None:
    origin = Origin("a.yaml")
    origin.lines |= {("method",): 3, ("method", "r"): 4, ("seed",): 2}
    origin.typed[("method", "r")] = "--lora-r"
    assert origin.of(("method", "r")) == "--lora-r"
    assert origin.of(("method", "alpha")) == "a.yaml:3"
    order = sorted([("method", "r"), ("missing",), ("method",), ("seed",)], key=origin.rank)
    assert order == [("seed",), ("method",), ("missing",), ("method", "r")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a.yaml: the file is empty; type `tunesmith init --help` to see how one is made"),
        (b"# only a comment\n", "a.yaml: the file is empty"),
        (b"- a\n- b\n", "a.yaml:1: got a list; expected keys such as `model:` and `data:`"),
        (b"just words", "a.yaml:1: got a str; expected keys"),
        (b"a: 1\nb: [\n", "a.yaml:3: not YAML: expected the node content"),
        (b"a: 1\n\tb: 2\n", "a.yaml:2: not YAML: found character '\\t' that cannot start any token"),
        (b"a: 1\n---\nb: 2\n", "a.yaml:2: not YAML: but found another document"),
        (b"a: 2024-13-45\n", "a.yaml: not YAML: month must be in 1..12; put it in quotes"),
        (b"a: \x00\n", "a.yaml: not YAML: unacceptable character #x0000"),
        (b"a: *nobody\n", "a.yaml:1: not YAML: found undefined alias 'nobody'"),
        (b"a: !!python/object:os.system x\n", "a.yaml:1: not YAML: could not determine a constructor"),
        ("a: größe".encode("latin-1"), "a.yaml: byte 5 is not UTF-8; save the task file as UTF-8"),
    ],
)
def test_a_file_that_is_no_task_file_is_told_in_one_line(content: bytes, complaint: str) -> None:
    Path("a.yaml").write_bytes(content)
    with pytest.raises(Mistake) as mistake:
        read_yaml(Path("a.yaml"))
    assert str(mistake.value).startswith(complaint)
    assert "\n" not in str(mistake.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    Path("a.yaml").write_bytes("\ufeffa: 1".encode())
    assert read_yaml(Path("a.yaml"))[0] == {"a": 1}


@pytest.mark.parametrize("name", ["taks.yaml", ".", "task.yaml/x", "nowhere/task.yaml"])
def test_a_file_that_is_not_there_is_told_with_the_nearest(name: str) -> None:
    Path("task.yaml").write_text("a: 1")
    with pytest.raises(Mistake, match=r": no such task file; ") as mistake:
        read_yaml(Path(name))
    advice = "'task.yaml'" if name == "taks.yaml" else "task.yaml" if name == "." else "`tunesmith init my-project"
    assert advice in str(mistake.value)


@pytest.mark.parametrize(
    ("word", "can_be", "value"),
    [
        ("3", {int}, 3),
        ("3", {str}, "3"),
        ("3", {str, type(None)}, "3"),
        ("null", {str, type(None)}, None),
        ("a: b", {Any}, "a: b"),
        ("{a: b}", {Any}, {"a": "b"}),
        ("a, b", {list, type(None)}, ["a", "b"]),
        ("a, b", {list, str}, "a, b"),
        ("[a", {list}, "[a"),
        ("2024-13-45", {int}, "2024-13-45"),
        (3, {str}, 3),
        (["a"], {list}, ["a"]),
    ],
)
def test_a_word_of_the_shell_is_what_the_field_can_hold(word: Any, can_be: set[Any], value: Any) -> None:
    assert from_shell(word, can_be) == value

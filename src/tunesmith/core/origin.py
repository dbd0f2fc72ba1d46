"""A YAML file as plain values, with the place where each key was written, so that a complaint can name its line."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import Mistake, nearest

Keys = tuple[str, ...]


class Origin:
    """Where each key was written: on a line of `file`, or on the command line; and which the file gives twice."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Keys, int] = {}
        self.typed: dict[Keys, str] = {}
        self.repeated: list[Keys] = []

    def of(self, keys: Keys) -> str:
        """The place of `keys`, or of the nearest level above that has one: "task.yaml:7", "--method.r"."""
        for length in range(len(keys), 0, -1):
            if option := self.typed.get(keys[:length]):
                return option
            if line := self.lines.get(keys[:length]):
                return f"{self.file}:{line}"
        return self.file

    def rank(self, keys: Keys) -> tuple[int, int]:
        """Where `of(keys)` stands in order of reading: the lines of the file, the file as a whole, what was typed."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.typed:
                return 2, list(self.typed).index(keys[:length])
            if line := self.lines.get(keys[:length]):
                return 0, line
        return 1, 0


def read_yaml(path: Path) -> tuple[dict[str, Any], Origin]:
    """The mapping in a file, and where its keys stand.

    Raises Mistake when the file is not there, not readable, not UTF-8, not YAML, empty, or not a mapping.
    """
    text = _read(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Mistake(_broken(path, error)) from None
    except ValueError as error:  # a date such as 2024-13-45, which YAML leaves to Python
        raise Mistake(f"{path}: not YAML: {error}; put it in quotes") from None
    if tree is None:
        raise Mistake(f"{path}: the file is empty; type `tunesmith init --help` to see how one is made")
    if not isinstance(tree, dict):
        raise Mistake(f"{path}:1: got a {type(tree).__name__}; expected keys such as `model:` and `data:`")
    origin = Origin(str(path))
    origin.repeated = list(_note_lines(node, (), origin.lines))
    return tree, origin


def read_task(file: Path | str | Mapping[str, Any]) -> tuple[dict[str, Any], Origin, Path]:
    """The keys of a task file, where they stand, and the folder it lies in; or keys that are no file's as they are."""
    if isinstance(file, Mapping):
        return dict(file), Origin("task"), Path()
    return *read_yaml(Path(file)), Path(file).parent


def beside(spec: Any, folder: Path) -> Any:
    """A file's name, a list of them, or a mapping that holds some, as they lie in `folder`; others stay as they are."""
    if isinstance(spec, list):
        return [beside(one, folder) for one in spec]
    if isinstance(spec, dict):
        return {key: beside(one, folder) if key == "path" or "path" not in spec else one for key, one in spec.items()}
    return str(folder / spec) if isinstance(spec, str) and _is_there(folder, spec) else spec


def from_shell(word: Any, can_be: set[Any]) -> Any:
    """The value of a word typed after ``--key``, for a field that holds one of the types `can_be`.

    It is read as YAML, but stays text where text is wanted or where a sentence with a colon would become a mapping, and
    commas make a list where one is wanted. What is no text, from a call in Python, is a value already.
    """
    if not isinstance(word, str) or can_be == {str}:
        return word
    try:
        value = yaml.safe_load(word)
    except (yaml.YAMLError, ValueError):
        return word
    if isinstance(value, str) and can_be & {list, tuple} and str not in can_be:
        return [part.strip() for part in value.split(",")]
    is_text = can_be == {str, type(None)} and value is not None
    return word if is_text or (isinstance(value, dict) and not word.lstrip().startswith("{")) else value


def _is_there(folder: Path, spec: str) -> bool:
    """Whether a file, a pattern (`*.csv`) or the first of a pair (`train.{en,de}`) lies in `folder`."""
    first = re.sub(r"\{([^,}]*),[^}]*\}", r"\1", spec)
    return spec != "" and ((folder / first).exists() or bool(glob.glob(str(folder / spec))))  # noqa: PTH207 - allows a leading ..


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        near = sorted(str(file) for file in (path if path.is_dir() else path.parent).glob("*.y*ml"))
        hint = nearest(str(path), near) if near else "type `tunesmith init my-project --data FILE` to make one"
        raise Mistake(f"{path}: no such task file; {hint}") from None
    except PermissionError:
        raise Mistake(f"{path}: not readable; check its permissions") from None
    except UnicodeDecodeError as error:
        raise Mistake(f"{path}: byte {error.start} is not UTF-8; save the task file as UTF-8") from None


def _broken(path: Path, error: yaml.YAMLError) -> str:
    """The complaint about a text that is not YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{path}{line}: not YAML: {problem}"


def _note_lines(node: Any, keys: Keys, lines: dict[Keys, int]) -> Iterator[Keys]:
    """Fill `lines` from a composed YAML tree; yield the keys that occur twice. Mappings in a list count from 0."""
    if isinstance(node, yaml.SequenceNode):
        for place, one in enumerate(node.value):
            if isinstance(one, yaml.MappingNode):
                lines[(*keys, str(place))] = one.start_mark.line + 1
                yield from _note_lines(one, (*keys, str(place)), lines)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Keys] = set()
    for key, value in node.value:
        here = (*keys, str(key.value))
        if here in seen:
            yield here
        seen.add(here)
        lines[here] = key.start_mark.line + 1
        yield from _note_lines(value, here, lines)

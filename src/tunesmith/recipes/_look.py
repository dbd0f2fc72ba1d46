"""What a person's data are for, which of their columns is what, and how to split them: found by looking, and said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice
from tunesmith.data._guess import Guess, guess
from tunesmith.data._language import languages
from tunesmith.data._read import Reading
from tunesmith.data._spec import Source
from tunesmith.data._split import split
from tunesmith.recipes._work import read_source

SMALL = 500
"""Below so many rows a tenth of them is too few to measure on."""
SHOWN = 20
"""So many labels are told."""
_CALLED = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found. `columns` is empty where they find themselves, as in a format that says what they mean.

    `validation` and `test` are shares of the rows, or files beside the training file. `told` are sentences for the
    person.
    """

    source: Source
    task: Chosen
    columns: Mapping[str, str | list[str]]
    formats: tuple[str, ...]
    rows: int
    bad_rows: int
    validation: float | str
    test: float | str
    told: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the task chooses from; () where its output is free text."""
        return tuple(getattr(self.task.config, "labels", ()))


def look(source: Source, asked: str | None) -> Seen:
    """Look at all rows of a source; `asked` is the task where the person said it.

    Raises Mistake when the source cannot be read, when there is nothing in it to learn, and when its labels are none.
    """
    task, columns, why = _task(source, asked)
    source = source.model_copy(update={"columns": dict(columns)})
    reading = read_source(task, source.model_copy(update={"bad_rows": "skip"}))
    task = _completed(task, reading)
    beside = {name: _beside(source, task, name) for name in _CALLED}
    share = _share(reading.records, sum(1 for file in beside.values() if not file))
    seen = Seen(
        source,
        task,
        _columns(task, reading),
        reading.formats,
        len(reading.records),
        len(reading.problems),
        beside["validation"] or share,
        beside["test"] or share,
        (f"the task is {task.name}: {why}",),
    )
    notes = [note.replace(" (as given)", "") for note in reading.notes]  # given by the guess, not by the person
    return replace(seen, told=(*notes, *seen.told, *_about(seen)))


def _task(source: Source, asked: str | None) -> tuple[Chosen, Mapping[str, Any], str]:
    """The task, the columns for it where they are known, and why it is this one."""
    if asked is None:
        found = guess(source)
        return choose("tasks", found.task), found.columns, found.why
    task = choose("tasks", asked)
    try:
        found = guess(source)
    except Mistake:  # what is in the file may be plain to the person alone; whether it can be read, `read` will say
        found = Guess("", "", "")
    return task, found.columns if found.task == task.name else {}, "as you said"


def _completed(task: Chosen, reading: Reading[Any]) -> Chosen:
    """The task with what the rows tell: their labels, their languages."""
    keys: dict[str, Any] = {}
    fields = choice("tasks", task.name).Config.model_fields
    if "labels" in fields:
        _refuse_texts_for_labels(reading)
        keys["labels"] = list(reading.labels)
    for name, part in (("source_language", "input"), ("target_language", "output")):
        if name in fields:
            (code, _), *_ = [*languages([getattr(row, part) for row in reading.records]).most_common(1), ("", 0)]
            keys[name] = _LANGUAGES.get(code, "")
    return choose("tasks", task.name, **keys)


def _refuse_texts_for_labels(reading: Reading[Any]) -> None:
    rows, labels = len(reading.records), len(reading.labels)
    if labels > 20 and labels * 2 > rows:
        column = " and ".join(reading.columns.get("output", ())) or "the output"
        raise Mistake(
            f"{column}: got {labels:,} different labels in {rows:,} rows; expected a few that come again and again; "
            "give another --task"
        )


def _columns(task: Chosen, reading: Reading[Any]) -> dict[str, str | list[str]]:
    """Whose column is whose, in the task's order; nothing where every column is called as its field is."""
    found = {field: reading.columns[field] for field in task.module.FIELDS if field in reading.columns}
    if all(names == (field,) for field, names in found.items()):
        return {}
    return {field: names[0] if len(names) == 1 else list(names) for field, names in found.items()}


def _beside(source: Source, task: Chosen, name: str) -> str:
    """A file of the same name but "test" (or "dev" …) where the training file says "train"; "" when there is none."""
    if not isinstance(source.path, str) or "train" not in Path(source.path).name:
        return ""
    for word in _CALLED[name]:
        file = Path(source.path).with_name(Path(source.path).name.replace("train", word))
        try:
            read_source(task, source.model_copy(update={"path": str(file)}))
        except Mistake:
            continue
        return str(file)
    return ""


def _share(rows: Sequence[Any], splits: int) -> float:
    """The share of the rows for each of `splits` splits: a tenth, or more of a small set."""
    for share in (0.1, 0.2, 0.3):
        try:
            split(rows, *[share] * splits)
        except Mistake:
            continue
        if len(rows) >= SMALL or share > 0.1:
            return share
    return 0.3


def _about(seen: Seen) -> Iterator[str]:
    if seen.labels:
        more = f" and {len(seen.labels) - SHOWN} more" if len(seen.labels) > SHOWN else ""
        yield f"its {len(seen.labels)} labels are {', '.join(seen.labels[:SHOWN])}{more}"
    if seen.bad_rows:
        yield "bad rows stop a climb: `tunesmith data check` shows them; mend them, or write `bad_rows: skip`"
    for name, given in (("validation", seen.validation), ("test", seen.test)):
        if isinstance(given, str):
            yield f"{name}: {given}, which lies beside the training file"
        else:
            yield f"{name}: {given:.0%} of the rows, chosen by what they say, so that rows added later move none"

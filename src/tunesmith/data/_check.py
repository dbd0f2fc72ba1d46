"""What is in the data and what is wrong with it: the numbers behind `tunesmith data check`."""

from __future__ import annotations

import bisect
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.core.progress import track
from tunesmith.core.records import Labelled, Record
from tunesmith.data._content import answer, everything, question
from tunesmith.data._dedupe import Groups, across, conflicts, exact_duplicates, near_duplicates, same_question
from tunesmith.data._findings import Finding, findings
from tunesmith.data._language import languages
from tunesmith.data._personal import personal_data
from tunesmith.data._row import Problem
from tunesmith.data._version import data_version

SHOWN = 20
"""So many places of each kind are written out in `as_dict`; the counts are always whole."""

_AT_ONCE = 256

Places = tuple[tuple[str, ...], ...]
Measure = Callable[[Sequence[Record]], Sequence[int]]
"""How many tokens each of some rows has."""


@dataclass(frozen=True)
class Lengths:
    """How long rows are, in `unit`: "tokens" of the model's tokenizer, or "words" when there was none.

    `histogram` is (from, up to and with, rows); `over` counts the rows longer than `max_length`.
    """

    unit: str
    shortest: int
    median: int
    ninety_fifth: int
    longest: int
    total: int
    histogram: tuple[tuple[int, int, int], ...]
    over: int = 0
    max_length: int | None = None


@dataclass(frozen=True)
class Report:
    """What was found. Everything is a count or a place ("file.csv:12"); no text of the data is in it.

    `duplicates`, `near_duplicates` and `conflicts` (the same question under different labels) are groups of places.
    `leaks` are rows that ask the same in more than one split, `near_leaks` nearly the same. `languages` counts the
    texts whose language is sure, for inputs and, where they are free text, outputs. `copies` counts rows whose output
    is their input.
    """

    rows: Mapping[str, int]
    version: str
    lengths: Mapping[str, Lengths]
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    duplicates: Places = ()
    near_duplicates: Places = ()
    conflicts: Places = ()
    leaks: Places = ()
    near_leaks: Places = ()
    shared_contexts: int = 0
    copies: int = 0
    languages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    personal: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; of places, the count and the first twenty."""
        plain = asdict(self)
        for name in ("duplicates", "near_duplicates", "conflicts", "leaks", "near_leaks"):
            groups: Places = getattr(self, name)
            plain[name] = {
                "groups": len(groups),
                "rows": sum(map(len, groups)),
                "first": [list(group[:SHOWN]) for group in groups[:SHOWN]],
            }
        first = [problem._asdict() for problem in self.problems[:SHOWN]]
        plain["problems"] = {"rows": len(self.problems), "first": first}
        return plain


def check(
    splits: Mapping[str, Sequence[Record]],
    *,
    labels: Sequence[str] | None = None,
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    measure: Measure | None = None,
    max_length: int | None = None,
) -> Report:
    """Look at the rows of every split (train, validation, test; at least one).

    `labels` is the list of labels, () for "as found", None when outputs are free text. `problems` and `notes` are what
    the reading told. `measure` counts the tokens of rows; without it the words of question and answer are counted.
    """
    rows = [record for part in splits.values() for record in part]
    split_of = [name for name, part in splits.items() for _ in part]
    same = same_question(rows)
    near = tuple(group for group in near_duplicates(rows) if group not in set(same))
    leaks = across(same, split_of)
    leaked = {index for group in leaks for index in group}
    near_leaks = tuple(group for group in across(near, split_of) if not leaked.issuperset(group))

    def places(groups: Groups) -> Places:
        return tuple(tuple(rows[index].source for index in group) for group in groups)

    counted = {name: _count_labels(part, labels is not None) for name, part in splits.items()}
    report = Report(
        rows={name: len(part) for name, part in splits.items()},
        version=data_version(rows),
        lengths={name: _lengths(part, measure, max_length) for name, part in splits.items() if part},
        labels={name: dict(count.most_common()) for name, count in counted.items() if count},
        problems=tuple(problems),
        duplicates=places(exact_duplicates(rows)),
        near_duplicates=places(near),
        conflicts=places(conflicts(rows, same)) if any(counted.values()) else (),
        leaks=places(leaks),
        near_leaks=places(near_leaks),
        shared_contexts=_shared_contexts(splits),
        copies=sum(1 for row in rows if isinstance(row, Labelled) and row.output and row.output == row.input),
        languages=_languages(rows, labels is not None),
        personal=dict(personal_data(everything(row) for row in rows)),
        notes=tuple(notes),
    )
    return _with_findings(report, tuple(labels or ()))


def _with_findings(report: Report, labels: tuple[str, ...]) -> Report:
    values = {name: getattr(report, name) for name in report.__dataclass_fields__}
    return Report(**{**values, "findings": findings(report, labels)})


def _words(rows: Sequence[Record]) -> list[int]:
    return [len(everything(row).split()) for row in rows]


def _lengths(rows: Sequence[Record], measure: Measure | None, max_length: int | None) -> Lengths:
    lengths: list[int] = []
    with track(len(rows), "rows", "lengths") as bar:
        while len(lengths) < len(rows):
            some = rows[len(lengths) : len(lengths) + _AT_ONCE]
            lengths += (measure or _words)(some)
            bar.advance(len(some))
    lengths.sort()
    edges = [0, 16]
    while edges[-1] < lengths[-1]:
        edges.append(2 * edges[-1])
    bins = Counter(bisect.bisect_left(edges, max(length, 1)) for length in lengths)
    return Lengths(
        unit="tokens" if measure else "words",
        shortest=lengths[0],
        median=round(statistics.median(lengths)),
        ninety_fifth=lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
        longest=lengths[-1],
        total=sum(lengths),
        histogram=tuple((edges[number - 1] + 1, edges[number], bins[number]) for number in range(1, len(edges))),
        over=0 if max_length is None else len(lengths) - bisect.bisect_right(lengths, max_length),
        max_length=max_length,
    )


def _count_labels(rows: Sequence[Record], labelled: bool) -> Counter[str]:
    """Rows of each label, or named entities of each kind."""
    counted: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Labelled) and row.tags:
            counted.update(tag[2:] for tag in row.tags if tag.startswith("B-"))
        elif isinstance(row, Labelled) and labelled:
            counted.update(label for label in row.references if label)
    return counted


def _shared_contexts(splits: Mapping[str, Sequence[Record]]) -> int:
    """How many passages are asked about in more than one split."""
    seen: Counter[str] = Counter()
    for rows in splits.values():
        seen.update({row.context for row in rows if isinstance(row, Labelled) and row.context})
    return sum(1 for count in seen.values() if count > 1)


def _languages(rows: Sequence[Record], labelled: bool) -> dict[str, dict[str, int]]:
    found = {"input": dict(languages([question(row) for row in rows]).most_common())}
    if not labelled and not any(isinstance(row, Labelled) and row.tags for row in rows):
        found["output"] = dict(languages([answer(row) for row in rows]).most_common())
    return {part: count for part, count in found.items() if count}

"""The report in plain sentences: what is wrong, what to watch, what is fine, and what to do about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tunesmith.data._check import Places, Report
    from tunesmith.data._row import Kind

FEW = 1000
"""Below so many training rows a task is small, and is told what to expect."""

_SPARSE, _LOPSIDED, _SMALL_TEST = 10, 10.0, 200


@dataclass(frozen=True)
class Finding:
    """One sentence about the data and one about what to do.

    A "problem" spoils results and should be mended, a "caution" should be known, "fine" was looked at and is in order.
    """

    severity: Literal["problem", "caution", "fine"]
    says: str
    do: str = ""


Told = Iterator[Finding]


def findings(report: Report, labels: tuple[str, ...]) -> tuple[Finding, ...]:
    """Everything worth a sentence, the gravest first."""
    looks: tuple[Callable[[Report], Told], ...] = (
        _bad_rows, _leaks, lambda report: _labels(report, labels), _conflicts, _repeats, _copies, _amount, _test_size,
        _lengths, _languages, _personal,
    )  # fmt: skip
    told = [finding for look in looks for finding in look(report)]
    return tuple(sorted(told, key=lambda finding: ("problem", "caution", "fine").index(finding.severity)))


def _bad_rows(report: Report) -> Told:
    kinds = Counter(problem.kind for problem in report.problems)
    says: dict[Kind, tuple[str, str]] = {
        "malformed": ("malformed", "mend them"),
        "empty": ("empty where text is needed", "fill or remove them"),
        "label": ("labelled with something that is not in the list", "correct the labels, or add them to `labels:`"),
    }
    for kind, (what, do) in says.items():
        if kinds[kind]:
            places = [problem.source for problem in report.problems if problem.kind == kind]
            yield Finding(
                "problem",
                f"{_rows(kinds[kind])} {_are(kinds[kind])} {what}: {_listed(places)}",
                f"{do}, or write `bad_rows: skip` in the data source to leave them out",
            )
    if not report.problems:
        yield Finding("fine", "every row can be read and none is empty")


def _leaks(report: Report) -> Told:
    if report.leaks:
        yield Finding(
            "problem",
            f"{_groups(report.leaks)} stand in several splits, where a test rewards memory: {_first(report.leaks)}",
            "take them out of the training file, or let one file be split (`test: 0.1`), which keeps them together",
        )
    if report.near_leaks:
        yield Finding(
            "caution",
            f"{_groups(report.near_leaks, 'nearly ')} stand in several splits: {_first(report.near_leaks)}",
            "look at them, and take them out of the training file when they are the same example in other words",
        )
    if report.shared_contexts:
        yield Finding(
            "caution",
            f"{report.shared_contexts:,} passages are asked about in more than one split",
            "for a harder test, give test and validation files with passages of their own",
        )
    if len(report.rows) > 1 and not report.leaks and not report.near_leaks:
        yield Finding("fine", "no row stands in two splits, not even nearly")


def _labels(report: Report, labels: tuple[str, ...]) -> Told:
    train = report.labels.get("train", {})
    for name, counted in report.labels.items():
        new = sorted(set(counted) - set(train)) if train and name != "train" else []
        if new:
            do = "add examples of them to the training rows"
            yield Finding("problem", f"{name} has labels that train has not: {', '.join(new)}", do)
    unused = [label for label in labels if train and label not in train]
    if unused:
        yield Finding("problem", f"no training row is labelled {' or '.join(unused)}", "add some, or drop the label")
    sparse = [f"{label} ({count})" for label, count in train.items() if count < _SPARSE]
    if sparse:
        says = f"labels with fewer than {_SPARSE} training rows: {', '.join(sparse)}"
        yield Finding("caution", says, "add examples, or put such labels together")
    if len(train) > 1:
        yield _balance(train)


def _balance(train: Mapping[str, int]) -> Finding:
    most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    share = train[most] / sum(train.values())
    if train[most] > _LOPSIDED * train[least]:
        says = f"{most} is {train[most] / train[least]:.0f} times as frequent as {least} ({share:.0%} of all)"
        advice = "judge by F1 rather than accuracy, and add examples of the rare labels, or write sampling: balanced"
        return Finding("caution", says, f"{advice} or class_weights: balanced below task")
    return Finding("fine", f"labels are balanced enough: the most frequent, {most}, is {share:.0%} of all")


def _conflicts(report: Report) -> Told:
    if report.conflicts:
        rows = sum(map(len, report.conflicts))
        yield Finding(
            "caution" if rows < 0.01 * sum(report.rows.values()) else "problem",
            f"{rows:,} rows ask the same as another and are labelled differently: {_first(report.conflicts)}",
            "decide which label is right",
        )


def _repeats(report: Report) -> Told:
    spare = sum(len(group) - 1 for group in report.duplicates)
    if spare:
        says = f"{_rows(spare)} repeat{'s' * (spare == 1)} another exactly: {_first(report.duplicates)}"
        yield Finding("caution", says, "remove repeats that do not stand for a real frequency")
    if report.near_duplicates:
        says = f"{_groups(report.near_duplicates, 'nearly ')}: {_first(report.near_duplicates)}"
        yield Finding("caution", says, "keep one of each when they come from a template")
    if not spare and not report.near_duplicates:
        yield Finding("fine", "no row repeats another, exactly or nearly")


def _copies(report: Report) -> Told:
    if report.copies:
        says = f"the output is the same as the input in {_rows(report.copies)}"
        yield Finding("caution", says, "check that these were really answered")


def _amount(report: Report) -> Told:
    train = report.rows.get("train", 0)
    if 0 < train < FEW:
        expect = "shots in the prompt often do as well" if train < 100 else "expect a small adapter to gain something"
        says = f"{_rows(train)} to train on, fewer than {FEW:,}: {expect}, and results to change from seed to seed"
        yield Finding(
            "caution", says, "more examples help most now; train for more epochs and watch the validation rows"
        )
    elif train:
        yield Finding("fine", f"{_rows(train)} to train on")


def _test_size(report: Report) -> Told:
    for name in ("validation", "test"):
        size = report.rows.get(name, 0)
        if 0 < size < _SMALL_TEST:
            half = 100 * 1.96 * math.sqrt(0.25 / size)
            says = f"{_rows(size)} in {name}: an accuracy there is known to about ±{half:.0f} points"
            yield Finding("caution", says, f"give {name} {_SMALL_TEST} rows or more where small differences matter")


def _lengths(report: Report) -> Told:
    over = sum(lengths.over for lengths in report.lengths.values())
    some = next(iter(report.lengths.values()), None)
    if some is None:
        return
    if over:
        at_least = "at least " if some.unit == "words" else ""
        says = f"{at_least}{_rows(over)} {_are(over)} longer than max_length ({some.max_length:,})"
        yield Finding("caution", says, "raise `max_length`, or choose with `too_long` what happens to them")
    elif some.max_length is not None and some.unit == "tokens":
        longest = max(lengths.longest for lengths in report.lengths.values())
        yield Finding("fine", f"every row fits: the longest has {longest:,} of {some.max_length:,} {some.unit}")
    if some.unit == "words":
        yield Finding("caution", "lengths are in words, since no tokenizer was given", "count on a third more tokens")


def _languages(report: Report) -> Told:
    for part, counted in report.languages.items():
        total, (main, most) = sum(counted.values()), max(counted.items(), key=lambda item: item[1])
        others = {language: count for language, count in counted.items() if language != main}
        if sum(others.values()) >= max(3, 0.01 * total):
            listed = ", ".join(f"{language} {count / total:.1%}" for language, count in list(others.items())[:5])
            says = f"the {part} is mostly {main} ({most / total:.0%} of those long enough to tell), and also {listed}"
            yield Finding("caution", says, "keep one language, or make sure that every one is in train and in test")


def _personal(report: Report) -> Told:
    found = {kind: count for kind, count in report.personal.items() if count}
    if found:
        listed = ", ".join(f"{kind} in {_rows(count)}" for kind, count in found.items())
        says = f"the data look as if they held personal data: {listed}"
        yield Finding("caution", says, "a tuned model can repeat what it was shown: mask it before training")
    else:
        yield Finding("fine", "nothing looks like an e-mail address, a phone number or a card number")


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _groups(groups: Places, nearly: str = "") -> str:
    rows = sum(map(len, groups))
    return f"{rows:,} rows ({len(groups):,} group{'s' * (len(groups) != 1)}) that ask {nearly}the same"


def _first(groups: Places) -> str:
    return " = ".join(groups[0][:3]) + (" …" if len(groups) > 1 or len(groups[0]) > 3 else "")


def _listed(places: list[str]) -> str:
    return ", ".join(places[:5]) + (" …" if len(places) > 5 else "")

"""Which work a file of examples is for: what `tunesmith init` writes when it is told nothing but the file."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice
from tunesmith.data._language import languages
from tunesmith.data._spec import Source, Spec, places, shapes, source_of

SAMPLE = 2000
"""So many rows, evenly spread, are looked at for their length and language; for labels it is all of them."""

_MOST_LABELS, _LABEL_LENGTH = 100, 60
_NAMES = {
    "label": "label labels class category sentiment intent topic emotion polarity target gold_label label_text stars",
    "summary": "summary summaries highlights abstract tldr tl_dr",
    "question": "question query problem",
    "context": "context passage paragraph",
    "answer": "answer answers response output solution ideal",
    "tokens": "tokens words",
    "tags": "tags ner_tags ner labels",
    "id": "id idx index guid uuid key fname filename url split",
}
_KNOWN = {kind: names.split() for kind, names in _NAMES.items()}
_LANGUAGE = re.compile(r"[a-z]{2}|english|german|french|spanish|italian|portuguese|dutch|chinese|japanese|russian")


@dataclass(frozen=True)
class Guess:
    """What a file seems to be for.

    `columns` are written only where they do not find themselves (a shape such as alpaca needs none); `labels` are in
    the order that numbers in the data follow. `why` is a sentence for the person.
    """

    format: str
    task: str
    why: str
    columns: Mapping[str, str | list[str]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """The rows of a file, column by column."""

    format: str
    rows: Sequence[Mapping[str, Any]]
    columns: tuple[str, ...]

    def named(self, kind: str) -> str:
        """The column that has one of the usual names for `kind`, "" when none has."""
        folded = {column.lower().replace(" ", "_").replace("-", "_"): column for column in reversed(self.columns)}
        return next((folded[name] for name in _KNOWN[kind] if name in folded), "")

    def values(self, column: str) -> list[Any]:
        return [row.get(column) for row in self.rows]

    def sample(self, column: str) -> list[Any]:
        return self.values(column)[:: max(1, len(self.rows) // SAMPLE)]

    def cells(self, column: str) -> list[list[str]]:
        """The parts of every cell: of a list, of a|b, or the one it is."""
        values = self.values(column)
        split = [
            value if isinstance(value, list) else [] if value is None else str(value).split("|") for value in values
        ]
        return [[str(part).strip() for part in cell if str(part).strip()] for cell in split]

    def labels(self, column: str) -> tuple[str, ...]:
        """The labels of a column of few, short, recurring values; () when it is not one."""
        parts = [part for cell in self.cells(column) for part in cell]
        distinct = sorted(set(parts))
        most = min(_MOST_LABELS, max(2, len(parts) // (3 if len(parts) < 50 else 10)))
        if not 2 <= len(distinct) <= most or max(map(len, distinct)) > _LABEL_LENGTH:
            return ()
        return tuple(sorted(distinct, key=int)) if all(part.isdecimal() for part in distinct) else tuple(distinct)

    def words(self, column: str) -> float:
        """How many words a text of this column has, in the median; 0 when it holds no texts."""
        values = self.sample(column)
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        return statistics.median(len(text.split()) for text in texts) if len(texts) * 2 > len(values) else 0

    def texts(self) -> list[str]:
        """The columns that hold text."""
        return [column for column in self.columns if column not in self._identifiers() and self.words(column) > 0]

    def longest(self, but: str = "") -> str:
        """The text column with the most words, another one than `but`."""
        texts = [column for column in self.texts() if column != but]
        return max(texts, key=self.words) if texts else ""

    def _identifiers(self) -> set[str]:
        return {column for column in self.columns if column.lower() in _KNOWN["id"]}


def guess(path: Spec | Source) -> Guess:
    """Look at a file (or package, or hub dataset) and say which task it is for, and why.

    Raises Mistake when it cannot be read, or when there is nothing in it to learn.
    """
    source = source_of(path)
    place, carrier = places(source)[0]
    rows = [row.fields for row in choice("data", carrier).rows(place, source) if row.fields]
    if not rows:
        raise Mistake(f"{place}: no row can be read; type `tunesmith data check` with a task file to see why")
    if {"chosen", "rejected"} <= rows[0].keys():
        raise Mistake(f"{place}: got pairs of chosen and rejected answers; expected one answer a row")
    table = _Table(carrier, rows, tuple(dict.fromkeys(name for row in rows[:200] for name in row)))
    looks: tuple[Callable[[_Table], Guess | None], ...] = (
        _running, _tagged, _conversation, _parallel, _labelled, _asked, _summarised, _translated, _instructed, _written,
    )  # fmt: skip
    for look in looks:
        if found := look(table):
            return found
    columns = ", ".join(table.columns)
    raise Mistake(f"{place}: got the columns {columns}; expected texts and what is wanted for each; add a column")


def _running(table: _Table) -> Guess | None:
    return Guess("txt", "language_modelling", "it is running text, without columns") if table.format == "txt" else None


def _tagged(table: _Table) -> Guess | None:
    tokens, tags = table.named("tokens"), table.named("tags")
    if not tokens or not tags or not all(isinstance(row.get(tags), list) for row in table.rows[:20]):
        return None
    kinds = sorted({str(tag)[2:] for row in table.rows for tag in row.get(tags) or [] if str(tag)[1:2] == "-"})
    why = f"every token has a tag, and the tags name {len(kinds)} kinds of entities"
    columns = {} if (tokens, tags) == ("tokens", "tags") else {"tokens": tokens, "tags": tags}
    return Guess(table.format, "ner", why, columns, tuple(kinds))


def _conversation(table: _Table) -> Guess | None:
    if shapes()["sharegpt"].fits(table.rows[0]) < 1:
        return None
    return Guess("sharegpt", "chat", "every row is a conversation, a list of turns")


def _parallel(table: _Table) -> Guess | None:
    return Guess("parallel", "translation", "two files go line by line") if table.format == "parallel" else None


def _labelled(table: _Table) -> Guess | None:
    """Classification: a column of a label's name, or the only one, with few and short values."""
    few = {column: table.labels(column) for column in table.columns if column not in table._identifiers()}
    candidates = [column for column, labels in few.items() if labels]
    label = table.named("label")
    if label not in candidates:
        label = candidates[0] if len(candidates) == 1 and table.words(candidates[0]) <= 3 else ""
    text = table.longest(but=label)
    if not label or not text or table.named("context"):
        return None
    labels = few[label]
    why = f"'{label}' has only {len(labels)} different values, which come again and again"
    if labels == tuple(str(number) for number in range(len(labels))):
        why += "; they are numbers: write their names under `labels`, in this order"
    elif all(value.isdecimal() for value in labels):
        why += "; they are numbers: write their names as `label_values` of the data source"
    several = any(len(cell) > 1 for cell in table.cells(label))
    if several:
        why += ", several in a row"
    task = "multi_label" if several else "classification"
    return Guess(table.format, task, why, {"input": text, "output": label}, labels)


def _asked(table: _Table) -> Guess | None:
    if table.format == "squad":
        return Guess("squad", "question_answering", "it has SQuAD's format, questions on passages")
    question, context, answer = table.named("question"), table.named("context"), table.named("answer")
    if not question or not answer:
        return None
    if context:
        why = f"there is a question ('{question}') on a passage ('{context}') with its answer ('{answer}')"
        return Guess(table.format, "question_answering", why, {"input": question, "context": context, "output": answer})
    if table.words(answer) > 20:
        why = f"'{question}' is answered at length in '{answer}'"
        return Guess(table.format, "generation", why, {"input": question, "output": answer})
    why = f"'{question}' is answered in a few words in '{answer}', without a passage"
    return Guess(table.format, "question_answering", why, {"input": question, "output": answer})


def _summarised(table: _Table) -> Guess | None:
    """By name (also summary1, summary2 …), or one long text and one less than half as long."""
    named = [column for column in table.columns if re.sub(r"_?\d+$", "", column.lower()) in _KNOWN["summary"]]
    texts = [column for column in table.texts() if column not in named]
    if named and texts:
        text = max(texts, key=table.words)
        output: str | list[str] = named[0] if len(named) == 1 else named
        return Guess(
            table.format, "summarization", f"'{named[0]}' is a summary of '{text}'", {"input": text, "output": output}
        )
    if len(texts) == 2 and not shapes()["prompt_completion"].fits(table.rows[0]):
        long, short = sorted(texts, key=table.words, reverse=True)
        if table.words(long) > 50 and 3 < table.words(short) < 0.4 * table.words(long):
            why = f"'{short}' is much shorter than '{long}' ({table.words(short):.0f} words to {table.words(long):.0f})"
            return Guess(table.format, "summarization", why, {"input": long, "output": short})
    return None


def _translated(table: _Table) -> Guess | None:
    """Columns named after languages, a column of pairs, or two columns of like length in two languages."""
    for column in table.columns:
        value = table.rows[0].get(column)
        if isinstance(value, dict) and len(value) == 2 and all(_LANGUAGE.fullmatch(key.lower()) for key in value):
            first, second = value
            columns: dict[str, str | list[str]] = {"input": f"{column}.{first}", "output": f"{column}.{second}"}
            return Guess(
                table.format, "translation", f"'{column}' holds the same text in {first} and {second}", columns
            )
    texts = table.texts()
    if len(texts) != 2:
        return None
    first, second = texts
    pair = {"input": first, "output": second}
    if all(_LANGUAGE.fullmatch(column.lower()) for column in texts):
        return Guess(table.format, "translation", f"the columns are named after languages, {first} and {second}", pair)
    if 0.5 <= table.words(first) / table.words(second) <= 2:
        found = [languages([str(value) for value in table.sample(column)]).most_common(1) for column in texts]
        if all(found) and found[0][0][0] != found[1][0][0]:
            spoken = f"'{first}' is {found[0][0][0]} and '{second}' {found[1][0][0]}"
            return Guess(table.format, "translation", f"{spoken}, of about the same length", pair)
    return None


def _instructed(table: _Table) -> Guess | None:
    for name in ("alpaca", "prompt_completion"):
        if shapes()[name].fits(table.rows[0]) > 0:
            return Guess(
                name, "generation", f"the columns are those of the {name} format: what is asked and what is answered"
            )
    return None


def _written(table: _Table) -> Guess | None:
    texts = table.texts()
    if len(texts) != 2:
        return None
    first, second = texts
    why = f"there are two columns of free text; '{second}' is taken for what is to be written on '{first}'"
    return Guess(table.format, "generation", why, {"input": first, "output": second})

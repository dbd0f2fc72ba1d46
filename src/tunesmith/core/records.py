"""The records in which rooms meet: plain frozen values, stored as JSON Lines.

A record knows where it came from (`source`, "file.csv:12"), so that every complaint about it can name the line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `trained` says whether an assistant turn is to be learned."""

    role: Role
    content: str
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """Running text: for perplexity, bits per byte and further pre-training."""

    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An input with the output wanted for it: the record of every supervised task but chat.

    `output` is the label, summary, translation or answer. `outputs` holds every acceptable or applicable one where
    there are several (three reference summaries, all answers of a question, all labels of a multi-label row) and
    includes `output`; empty means just `output`. `context` is a passage the input is about (question answering).
    `tokens` and `tags` (BIO) are there for named entities only.
    """

    input: str
    output: str = ""
    outputs: tuple[str, ...] = ()
    context: str = ""
    tokens: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    source: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """Every output that counts as right, never empty."""
        return self.outputs or (self.output,)


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; the assistant's turns are what is learned."""

    messages: tuple[Message, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Preference:
    """One prompt and two continuations, the first preferred by a person."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What a task's judge says of one output: the row a metric adds up.

    `value` is the row's own number where it has one (1.0 for right, ROUGE-L F, nats); `weight` how much the row
    counts in a mean (tokens, for perplexity). `prediction` and `references` are texts, or sequences of tags, for
    metrics that count over the whole set (F1, BLEU, seqeval).
    """

    value: float
    weight: float = 1.0
    prediction: str | tuple[str, ...] = ""
    references: tuple[str | tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a sequence and, as many, how much each is trained on: 0 for the prompt, 1 for an answer.

    A row that is read as a whole, by an encoder, has `labels` instead of next tokens: (position, label id) pairs, with
    a weight for each; `second` is where its second text begins (a passage after its question), 0: it has one.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    adapter: str = ""
    labels: tuple[tuple[int, int], ...] = ()
    second: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


Record = Text | Labelled | Chat | Preference


def as_dict(record: Any) -> dict[str, Any]:
    """A record as plain JSON types, empty fields left out."""
    return {key: value for key, value in dataclasses.asdict(record).items() if value not in ("", (), [], {}, None)}


def fingerprint(record: Any) -> str:
    """SHA-256 (hex) of a record's content; where it came from does not count, nor does the order of rows."""
    content = {key: value for key, value in as_dict(record).items() if key != "source"}
    text = json.dumps([type(record).__name__, content], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, UTF-8, newline at the end."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read back what `write_jsonl` wrote; blank lines are skipped."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)

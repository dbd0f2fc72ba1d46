"""From records to rows for a model that reads and writes nothing: the text alone, and labels at its tokens.

The counterpart of a chat template for encoders. What is labelled follows from the head: the whole row at its first
token, each word at its first piece, an answer at the tokens where it starts and ends (both at the first token where
the passage has none, as in SQuAD 2.0).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded, Labelled
from tunesmith.prompts.budget import Cut, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_ANSWER = 30
"""Tokens an extracted answer may have, as in BERT's own evaluation on SQuAD."""


@dataclass(frozen=True, slots=True)
class Read:
    """A row without labels, and for each of its tokens what it stands for: the word's number, or its characters."""

    row: Encoded
    words: tuple[int | None, ...]
    offsets: tuple[tuple[int, int], ...]
    cut: bool = False


class Reader:
    """A tokenizer, what is labelled (`kind`: sequence, several, token or span) and the labels in their order.

    Raises Mistake for a tokenizer that does not say which characters a token stands for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kind: str, labels: Sequence[str], window: int) -> None:
        if not tokenizer.is_fast:
            raise Mistake(
                f"{tokenizer.name_or_path}: a tokenizer without offsets; expected a fast one (tokenizer.json)"
            )
        self.tokenizer, self.kind, self.labels = tokenizer, kind, tuple(labels)
        self.window = min(window, tokenizer.model_max_length)
        self._ids = {label: place for place, label in enumerate(self.labels)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of what is labelled and of the ids a text becomes: equal hashes read alike."""
        ids = self.tokenizer("Say: 1 + 1 = two,\n\tthen ü.", "Yes.")["input_ids"]
        return hashlib.sha256(json.dumps([self.kind, self.labels, ids]).encode()).hexdigest()

    def read(self, records: Sequence[Labelled], max_length: int | None = None) -> list[Read]:
        """The rows of records, cut where they are longer than `max_length` or the model's window: text at its end."""
        limit = min(max_length or self.window, self.window)
        made = []
        for record in records:
            whole = self._tokenize(record)
            cut = len(whole.ids) > limit
            one = self._tokenize(record, limit) if cut else whole
            second = one.type_ids.index(1) if self.kind == "span" and 1 in one.type_ids else 0
            words = tuple(
                word if sequence == (1 if self.kind == "span" else 0) else None
                for word, sequence in zip(one.word_ids, one.sequence_ids, strict=True)
            )
            made.append(Read(Encoded(tuple(one.ids), (), second=second), words, tuple(one.offsets), cut))
        return made

    def rows(
        self, records: Sequence[Labelled], wanted: Sequence[Sequence[str]], *, max_length: int, policy: Policy
    ) -> Cut:
        """Rows with their labels, and what was lost; `wanted[i]` is what is right of record `i`.

        A question whose answer the (cut) passage does not hold word for word is dropped. Raises Mistake, naming the
        row, for one that is too long under ``error``.
        """
        rows: list[Encoded] = []
        kept: list[Labelled] = []
        truncated = 0
        for record, right, one in zip(records, wanted, self.read(records, max_length), strict=True):
            if one.cut and policy == "error":
                raise Mistake(
                    f"{record.source or 'a row'}: longer than {min(max_length, self.window):,} tokens; "
                    "raise max_length, or type --too_long truncate"
                )
            labels = self._labels(record, right, one)
            if labels is None or (one.cut and policy == "drop"):
                continue
            truncated += one.cut
            rows.append(replace(one.row, weights=(1.0,) * len(labels), labels=labels))
            kept.append(record)
        return Cut(tuple(rows), tuple(kept), len(records) - len(rows), truncated)

    def _labels(self, record: Labelled, right: Sequence[str], one: Read) -> tuple[tuple[int, int], ...] | None:
        if self.kind == "sequence":
            return ((0, self._ids[right[0]]),)
        if self.kind == "several":
            return tuple((0, 2 * place + (label in right)) for label, place in self._ids.items())
        if self.kind == "token":
            firsts = first_pieces(one.words)
            return tuple((place, self._ids[right[word]]) for word, place in firsts.items()) or None
        return self._span(record, right, one)

    def _span(self, record: Labelled, right: Sequence[str], one: Read) -> tuple[tuple[int, int], ...] | None:
        """Start and end of the first acceptable answer that the passage holds; the first token for no answer."""
        if not right[0]:
            return ((0, 0), (0, 1))
        for answer in right:
            start = record.context.find(answer)
            end = start + len(answer)
            inside = [
                place
                for place, (span, word) in enumerate(zip(one.offsets, one.words, strict=True))
                if word is not None and span[0] < end and start < span[1]
            ]
            if start >= 0 and inside and one.offsets[inside[-1]][1] >= end:
                return ((inside[0], 0), (inside[-1], 1))
        return None

    def _tokenize(self, record: Labelled, limit: int | None = None) -> Any:
        keys: dict[str, Any] = {"verbose": False}
        if limit is not None:
            keys |= {"truncation": "only_second" if self.kind == "span" else True, "max_length": limit}
        if self.kind == "token":
            words = list(record.tokens or record.input.split())
            return self.tokenizer(words, is_split_into_words=True, **keys).encodings[0]
        if self.kind == "span":
            return self.tokenizer(record.input, record.context, **keys).encodings[0]
        text = "\n\n".join(part for part in (record.context, record.input) if part)
        return self.tokenizer(text, **keys).encodings[0]


def first_pieces(words: Sequence[int | None]) -> dict[int, int]:
    """The position of each word's first piece."""
    found: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            found.setdefault(word, place)
    return found

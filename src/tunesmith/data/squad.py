"""SQuAD: questions on passages, one or several answers each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.data._objects import decode
from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row

SUFFIXES = ()


def sniff(name: str, head: str) -> float:
    """By its keys, "paragraphs" and "context"; a JSON Lines file is not one."""
    is_json = head.lstrip()[:1] in {"{", "["} and not name.endswith((".jsonl", ".ndjson"))
    return 0.97 if is_json and '"paragraphs"' in head and '"context"' in head else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every question, named by its number: `input` the question, `context` the passage, `output` its answers.

    A question that its passage does not answer (SQuAD 2.0) has an empty list for output.
    """
    text = read_text(Path(name), options.encoding)
    content, _ = decode(name, text, len(text) - len(text.lstrip()))
    number = 0
    for article in content.get("data", []) if isinstance(content, dict) else content:
        for paragraph in article.get("paragraphs", []) if isinstance(article, dict) else []:
            for question in paragraph.get("qas", []):
                number += 1
                yield _row(paragraph, question, f"{name}:question {number}")
    if not number:
        raise Mistake(f"{name}: no questions; expected data[].paragraphs[].qas[], as SQuAD has them")


def _row(paragraph: dict[str, Any], question: dict[str, Any], source: str) -> Row:
    fields = {"input": question.get("question"), "context": paragraph.get("context")}
    if "answers" not in question and not question.get("is_impossible"):
        return Row(fields, source)
    given = [] if question.get("is_impossible") else question.get("answers") or []
    answers = list(dict.fromkeys(answer.get("text", "") for answer in given))
    return Row({**fields, "output": answers}, source)

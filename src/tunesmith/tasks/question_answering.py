"""A short answer to a question, from a passage where there is one, judged as SQuAD does.

A question that its passage does not answer (SQuAD 2.0's `is_impossible`, an empty list of answers) is answered with
the word `unanswerable`, is learned so, and counts as right when the model says so. Where there are such questions,
F1 is also told for them and for the others apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.metrics._mean import words
from tunesmith.tasks._judge import judged
from tunesmith.tasks._turns import answered, ask

METRIC = "token_f1"
METRICS = ("exact_match", "has_answer_f1", "no_answer_f1")
RECORD = Labelled
HEAD = "span"
FIELDS = {
    "input": "the question",
    "context": "the passage it is about",
    "output": "the answer, or a list of acceptable ones",
}
OPTIONAL: tuple[str, ...] = ("context",)
ALIASES = {
    "input": ("question", "query", "prompt"),
    "context": ("passage", "paragraph", "document", "background", "article"),
    "output": ("answer", "answers", "response", "target"),
}


class Config(Section):
    """How to answer, and what to say where the passage has no answer."""

    instruction: str = Field(
        "Answer the question in as few words as possible.", description="what is asked of the model"
    )
    unanswerable: str = Field("unanswerable", description="the answer to a question that the passage does not answer")
    max_new_tokens: int = Field(48, ge=1, description="tokens an answer may have")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The instruction, the passage, then the question: questions on one passage share all but their end."""
    passage = f"Passage: {record.context}" if record.context else ""
    return ask(config.instruction, passage, f"Question: {record.input}")


def answer(record: Labelled, config: Config) -> str:
    """The first answer; the word for "unanswerable" where there is none."""
    return record.references[0] or config.unanswerable


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and answer, for training."""
    return answered(prompt(record, config), answer(record, config))


def candidates(config: Config) -> tuple[str, ...]:
    """(): an answer is written freely."""
    return ()


def judge(record: Labelled, output: str, config: Config) -> Score:
    """SQuAD's F1 of words with the best reference; no answer, wanted or given, is the empty one, as in SQuAD 2.0."""
    unanswerable = words(config.unanswerable)
    prediction, *references = (
        "" if words(text) == unanswerable else text.strip() for text in (output, *record.references)
    )
    return judged(METRIC, prediction, tuple(references))


def choices(config: Config) -> tuple[str, ...]:
    """(): an answer is a piece of the passage."""
    return ()


def wanted(record: Labelled, config: Config) -> tuple[str, ...]:
    """Every acceptable answer; "" where the passage has none."""
    return tuple("" if answer == config.unanswerable else answer for answer in record.references)


def written(record: Labelled, labels: Sequence[str], config: Config) -> str:
    """The piece of the passage that was found; the word for "unanswerable" where it is empty."""
    return labels[0] or config.unanswerable


def max_new_tokens(config: Config) -> int:
    """Tokens an answer may have."""
    return config.max_new_tokens

"""A short answer to a question, from a passage where there is one, judged as SQuAD does."""

from __future__ import annotations

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._judge import judged
from tunesmith.tasks._turns import answered, ask

METRIC = "token_f1"
METRICS = ("exact_match",)
RECORD = Labelled
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
    """SQuAD's F1 of words with the best reference."""
    references = tuple(reference or config.unanswerable for reference in record.references)
    return judged(METRIC, output.strip(), references)


def max_new_tokens(config: Config) -> int:
    """Tokens an answer may have."""
    return config.max_new_tokens

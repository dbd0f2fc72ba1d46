"""A short text that says what a long one says, judged by ROUGE-L."""

from __future__ import annotations

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._judge import judged
from tunesmith.tasks._turns import answered, ask, question

METRIC = "rouge_l"
METRICS = ("rouge_1", "rouge_2", "rouge_lsum")
RECORD = Labelled
FIELDS = {"input": "the text to summarize", "output": "its summary, or a list of them"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {
    "input": ("document", "dialogue", "article", "text", "content", "body", "source", "report", "transcript"),
    "output": ("summary", "summaries", "highlights", "abstract", "tldr", "headline", "target"),
}


class Config(Section):
    """How long and of what kind the summary is to be."""

    instruction: str = Field(
        "Summarize the text below in one or two sentences.", description="what is asked of the model"
    )
    max_new_tokens: int = Field(128, ge=1, description="tokens a summary may have")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The instruction, then the text."""
    return ask(config.instruction, question(record))


def answer(record: Labelled, config: Config) -> str:
    """The first summary."""
    return record.references[0]


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and summary, for training."""
    return answered(prompt(record, config), answer(record, config))


def candidates(config: Config) -> tuple[str, ...]:
    """(): a summary is written freely."""
    return ()


def judge(record: Labelled, output: str, config: Config) -> Score:
    """ROUGE-L with the best reference."""
    return judged(METRIC, output.strip(), record.references)


def max_new_tokens(config: Config) -> int:
    """Tokens a summary may have."""
    return config.max_new_tokens

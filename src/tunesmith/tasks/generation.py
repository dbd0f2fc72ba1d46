"""Text written freely from an instruction of each row's own (Alpaca, Dolly), judged by ROUGE-L with the reference.

Many texts answer an instruction well and one of them is the reference, so ROUGE-L tells more of length and manner than
of truth: read it between a model before and after tuning, on the same rows. Perplexity of the reference is told beside
it, which moves even where no two words agree; it compares models of one tokenizer only.
"""

from __future__ import annotations

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._judge import judged
from tunesmith.tasks._turns import answered, ask, question

METRIC = "rouge_l"
METRICS = ("perplexity",)
RECORD = Labelled
FIELDS = {"input": "what is asked", "context": "what it is about", "output": "what should be written"}
OPTIONAL: tuple[str, ...] = ("context",)
ALIASES = {
    "input": ("prompt", "instruction", "question", "query", "text", "source"),
    "context": ("background", "passage", "document"),
    "output": ("completion", "response", "answer", "target", "output_text"),
}


class Config(Section):
    """What all rows have in common, if anything."""

    instruction: str = Field("", description="put before every input; the rows usually have instructions of their own")
    max_new_tokens: int = Field(256, ge=1, description="tokens that may be written")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The common instruction if there is one, then the row's own."""
    return ask(config.instruction, question(record))


def answer(record: Labelled, config: Config) -> str:
    """The first text wanted."""
    return record.references[0]


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and text, for training."""
    return answered(prompt(record, config), answer(record, config))


def candidates(config: Config) -> tuple[str, ...]:
    """(): the text is written freely."""
    return ()


def judge(record: Labelled, output: str, config: Config) -> Score:
    """ROUGE-L with the best reference."""
    return judged(METRIC, output.strip(), record.references)


def max_new_tokens(config: Config) -> int:
    """Tokens that may be written."""
    return config.max_new_tokens

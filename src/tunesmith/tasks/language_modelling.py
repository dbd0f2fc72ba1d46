"""Running text to go on learning a language or a field from (further pre-training), judged by perplexity.

Nothing is asked and nothing answered: every token of every document is learned, its end too. To look at what the model
writes, it goes on from the beginning of a document.
"""

from __future__ import annotations

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Message, Score, Text
from tunesmith.tasks._judge import judged

METRIC = "perplexity"
METRICS = ("bits_per_byte", "rouge_l")
RECORD = Text
FIELDS = {"text": "a document"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {"text": ("content", "document", "body", "article", "passage", "story", "paragraph")}

BEGINNING = 200
"""Characters of a document that the model goes on from, and that are shown of what follows."""


class Config(Section):
    """How much is written where a text is gone on with."""

    max_new_tokens: int = Field(64, ge=1, description="tokens written to look at")


def prompt(record: Text, config: Config) -> tuple[Message, ...]:
    """The beginning of the document."""
    return (Message("user", record.text[: _cut(record)]),)


def answer(record: Text, config: Config) -> str:
    """What follows the beginning."""
    return record.text[_cut(record) :][:BEGINNING]


def conversation(record: Text, config: Config) -> tuple[Message, ...]:
    """Both, to be looked at; what is learned is the whole document."""
    return (*prompt(record, config), Message("assistant", answer(record, config)))


def candidates(config: Config) -> tuple[str, ...]:
    """(): text is written freely."""
    return ()


def judge(record: Text, output: str, config: Config) -> Score:
    """ROUGE-L of what was written with what follows; perplexity is measured from the likelihood of documents."""
    return judged("rouge_l", output.strip(), (answer(record, config).strip(),))


def max_new_tokens(config: Config) -> int:
    """Tokens that may be written."""
    return config.max_new_tokens


def _cut(record: Text) -> int:
    """Where the beginning ends: at the first blank behind its middle, after 200 characters at most."""
    blank = record.text.find(" ", min(BEGINNING, len(record.text) // 2))
    return len(record.text) if blank < 0 else blank

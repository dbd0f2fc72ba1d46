"""The same text in another language, judged by chrF and BLEU over the whole set."""

from __future__ import annotations

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._judge import judged
from tunesmith.tasks._turns import answered, ask

METRIC = "chrf"
METRICS = ("bleu",)
RECORD = Labelled
FIELDS = {"input": "the text to translate", "output": "its translation, or a list of them"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {
    "input": ("source", "src", "source_text", "en", "english", "text"),
    "output": ("target", "tgt", "target_text", "translation", "de", "fr", "es", "reference"),
}


class Config(Section):
    """From which language into which."""

    instruction: str = Field("Translate the text below", description="what is asked; the languages are added to it")
    source_language: str = Field("", description="the language of the input, e.g. English")
    target_language: str = Field("", description="the language wanted, e.g. German")
    max_new_tokens: int = Field(256, ge=1, description="tokens a translation may have")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The instruction with the languages it does not name itself, then the text."""
    instruction = config.instruction.rstrip().rstrip(".")
    if config.source_language and config.source_language.lower() not in instruction.lower():
        instruction += f" from {config.source_language}"
    if config.target_language and config.target_language.lower() not in instruction.lower():
        instruction += f" into {config.target_language}"
    return ask(f"{instruction}." if instruction else "", record.input)


def answer(record: Labelled, config: Config) -> str:
    """The first translation."""
    return record.references[0]


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and translation, for training."""
    return answered(prompt(record, config), answer(record, config))


def candidates(config: Config) -> tuple[str, ...]:
    """(): a translation is written freely."""
    return ()


def judge(record: Labelled, output: str, config: Config) -> Score:
    """chrF of the sentence with the best reference."""
    return judged(METRIC, output.strip(), record.references)


def max_new_tokens(config: Config) -> int:
    """Tokens a translation may have."""
    return config.max_new_tokens

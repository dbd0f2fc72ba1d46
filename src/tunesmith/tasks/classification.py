"""One label for each text, chosen by its log-probability among the label names, never by parsing free text."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._balance import ClassWeights, Sampling
from tunesmith.tasks._judge import judged
from tunesmith.tasks._labels import Labels, either, naming, recognised
from tunesmith.tasks._turns import answered, ask, question

METRIC = "accuracy"
METRICS = ("f1",)
RECORD = Labelled
HEAD = "sequence"
FIELDS = {"input": "the text to label", "output": "its label"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {
    "input": ("text", "sentence", "review", "content", "body", "message", "document", "tweet", "comment", "title"),
    "output": ("label", "labels", "class", "category", "sentiment", "target", "intent", "topic", "rating"),
}


class Config(Section):
    """What to label and with which names."""

    instruction: str = Field(
        "Classify the text below.", description="the question; the labels are added where it does not name them all"
    )
    labels: Labels = Field((), description="the label names; found in the training data where not given")
    class_weights: ClassWeights = "none"
    sampling: Sampling = "natural"
    max_new_tokens: int = Field(16, ge=1, description="tokens an answer may have, where it is generated")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The question with the labels it may be answered with, then the text.

    "Answer with one word: negative or positive." was the best of a dozen endings on 200 rows of SST-2 with
    SmolLM2-135M (area under the curve 0.79 to 0.83; "Answer with one of: negative, positive." 0.61), whichever way
    the labels were ordered.
    """
    one_word = all(label.isalnum() for label in config.labels)
    ending = f"Answer with one {'word' if one_word else 'label'}: {either(config.labels)}."
    return ask(naming(config.instruction, config.labels, ending), question(record))


def answer(record: Labelled, config: Config) -> str:
    """The label."""
    return record.output


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and label, for training."""
    return answered(prompt(record, config), answer(record, config))


def classes(record: Labelled, config: Config) -> tuple[str, ...]:
    """The label, as what the row counts where rare labels are made up for."""
    return (record.output,)


def candidates(config: Config) -> tuple[str, ...]:
    """The labels, in the order given."""
    return config.labels


def judge(record: Labelled, output: str, config: Config) -> Score:
    """Right or wrong; case and punctuation around the label do not matter."""
    return judged(METRIC, recognised(output, config.labels), record.references)


def choices(config: Config) -> tuple[str, ...]:
    """The labels, in the order given."""
    return config.labels


def wanted(record: Labelled, config: Config) -> tuple[str, ...]:
    """The label."""
    return (record.output,)


def written(record: Labelled, labels: Sequence[str], config: Config) -> str:
    """The label found."""
    return labels[0]


def max_new_tokens(config: Config) -> int:
    """Tokens an answer may have."""
    return config.max_new_tokens

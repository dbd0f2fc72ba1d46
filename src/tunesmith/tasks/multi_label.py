"""Several labels for each text, or none, written as a list with commas and judged as a set."""

from __future__ import annotations

from collections.abc import Sequence, Set

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.tasks._balance import ClassWeights, Sampling
from tunesmith.tasks._judge import judged
from tunesmith.tasks._labels import Labels, either, naming, recognised
from tunesmith.tasks._turns import answered, ask, question

METRIC = "f1_micro"
METRICS = ("f1", "accuracy")
RECORD = Labelled
HEAD = "several"
SEVERAL = True
FIELDS = {"input": "the text to label", "output": "its labels, a list or separated by |"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {
    "input": ("text", "sentence", "review", "content", "body", "message", "document", "comment", "title"),
    "output": ("labels", "label", "classes", "categories", "topics", "tags", "genres", "keywords"),
}
NONE = "none"


class Config(Section):
    """What to label and with which names."""

    instruction: str = Field(
        "Which labels apply to the text below?", description="the question; the labels are added where it lacks them"
    )
    labels: Labels = Field((), description="the label names; found in the training data where not given")
    class_weights: ClassWeights = "none"
    sampling: Sampling = "natural"
    max_new_tokens: int = Field(64, ge=1, description="tokens the list of labels may have")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The question with the labels there are, then the text."""
    ending = f"Write all that apply, separated by commas: {either(config.labels)}. Write none if none applies."
    return ask(naming(config.instruction, config.labels, ending), question(record))


def answer(record: Labelled, config: Config) -> str:
    """The labels in the order of the list, so that one set has one spelling; "none" for the empty set."""
    return ", ".join(_ordered(_wanted(record), config)) or NONE


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and labels, for training."""
    return answered(prompt(record, config), answer(record, config))


def classes(record: Labelled, config: Config) -> tuple[str, ...]:
    """The labels, as what the row counts where rare labels are made up for; no label is a class too."""
    return _ordered(_wanted(record), config) or (NONE,)


def candidates(config: Config) -> tuple[str, ...]:
    """(): a set of labels is written, not chosen."""
    return ()


def judge(record: Labelled, output: str, config: Config) -> Score:
    """The set of labels beside the set wanted; whatever is not a label counts as a wrong one."""
    parts = {recognised(part, config.labels) for part in _split(output, config)} - {""}
    found = parts if NONE in config.labels else parts - {NONE}
    return judged(METRIC, _ordered(found, config), (_ordered(_wanted(record), config),))


def choices(config: Config) -> tuple[str, ...]:
    """The labels, in the order given."""
    return config.labels


def wanted(record: Labelled, config: Config) -> tuple[str, ...]:
    """The labels that apply, in the order of the list."""
    return _ordered(_wanted(record), config)


def written(record: Labelled, labels: Sequence[str], config: Config) -> str:
    """The labels found, as a list with commas; "none" for the empty set."""
    return ", ".join(labels) or NONE


def max_new_tokens(config: Config) -> int:
    """Tokens the list of labels may have."""
    return config.max_new_tokens


def _split(output: str, config: Config) -> list[str]:
    """The parts of a list with commas, where a label may itself have a comma in it."""
    for label in sorted((label for label in config.labels if "," in label), key=len, reverse=True):
        output = output.replace(label, label.replace(",", "\0"))
    return [part.replace("\0", ",") for part in output.replace("\n", ",").split(",")]


def _wanted(record: Labelled) -> frozenset[str]:
    return frozenset(record.references) - {"", NONE}


def _ordered(labels: Set[str], config: Config) -> tuple[str, ...]:
    place = {label: index for index, label in enumerate(config.labels)}
    return tuple(sorted(labels, key=lambda label: (place.get(label, len(place)), label)))

"""Named entities, written by the model as a list and put back onto the tokens, judged by F1 of entities.

The answer has a line for each entity, in the order of the text: ``Empire State Building | location``; ``none`` where
there is none. That is short, needs no copying of the sentence, and keeps one entity one line whatever its words. A
name is found among the tokens from left to right, each mention taken once, so that an entity named twice is two
lines.

What is written is read back to the very tags, whatever the words, with one exception: where a name's words also stand,
untagged, between the entity before it and the entity itself ("Apple pie from Apple", the second alone tagged), the
first of them is taken.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.records import Labelled, Message, Score
from tunesmith.metrics._spans import spans
from tunesmith.tasks._judge import judged
from tunesmith.tasks._labels import Labels, naming, recognised
from tunesmith.tasks._turns import answered, ask

METRIC = "seqeval_f1"
METRICS: tuple[str, ...] = ()
RECORD = Labelled
HEAD = "token"
FIELDS = {"tokens": "the words of a sentence", "tags": "a BIO tag for each word"}
OPTIONAL: tuple[str, ...] = ()
ALIASES = {
    "tokens": ("words", "sentence", "text", "input"),
    "tags": ("ner_tags", "labels", "entities", "bio", "iob", "ner"),
}
NONE = "none"
_BETWEEN = " | "
_SPELLINGS: tuple[Callable[[str], str], ...] = ("{}\0".format, str, str.casefold)
"""What counts as spelled the same: word by word, then whatever the spaces, then whatever the case."""


class Config(Section):
    """Which kinds of entities there are."""

    instruction: str = Field(
        "List the named entities in the text below, one on each line, as: name | type. Write none if there are none.",
        description="what is asked; the types are added where it does not name them all",
    )
    labels: Labels = Field((), description="the types of entities; found in the training data where not given")
    max_new_tokens: int = Field(96, ge=1, description="tokens the list may have")


def prompt(record: Labelled, config: Config) -> tuple[Message, ...]:
    """The instruction with the types there are, then the words with single spaces."""
    return ask(
        naming(config.instruction, config.labels, f"Types: {', '.join(config.labels)}."), " ".join(_words(record))
    )


def answer(record: Labelled, config: Config) -> str:
    """A line for each entity, or "none"."""
    lines = [f"{' '.join(record.tokens[first:end])}{_BETWEEN}{kind}" for kind, first, end in spans(record.tags)]
    return "\n".join(lines) or NONE


def conversation(record: Labelled, config: Config) -> tuple[Message, ...]:
    """Prompt and list, for training."""
    return answered(prompt(record, config), answer(record, config))


def candidates(config: Config) -> tuple[str, ...]:
    """(): the list is written freely."""
    return ()


def judge(record: Labelled, output: str | tuple[str, ...], config: Config) -> Score:
    """The entities of the output as BIO tags beside the tags wanted; a name not in the text counts for nothing.

    An output that consists of tags already, one a word, is taken as it is.
    """
    words = _words(record)
    right = record.tags or ("O",) * len(words)
    found = output if isinstance(output, tuple) else tags(words, output, config.labels)
    score = judged(METRIC, found, (right,))
    return dataclasses.replace(score, value=1.0) if found == right else score  # no entities, none found: right


def choices(config: Config) -> tuple[str, ...]:
    """BIO tags of every type of entity, "O" first."""
    return ("O", *(f"{part}-{kind}" for kind in config.labels for part in "BI"))


def wanted(record: Labelled, config: Config) -> tuple[str, ...]:
    """A BIO tag for each word, in whatever scheme the row is tagged."""
    found = ["O"] * len(_words(record))
    for kind, first, end in spans(record.tags):
        found[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return tuple(found)


def written(record: Labelled, labels: Sequence[str], config: Config) -> tuple[str, ...]:
    """The tags found, one a word."""
    return tuple(labels)


def max_new_tokens(config: Config) -> int:
    """Tokens the list may have."""
    return config.max_new_tokens


def tags(words: Sequence[str], output: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """The BIO tags of `words` that an output in the form of `answer` stands for.

    Lines of another form, types that are not in `labels` and names that are not in the text are passed over.
    """
    found = ["O"] * len(words)
    cursor = 0
    for name, kind in _entities(output, labels):
        place = _place(words, name, found, cursor)
        if place is None:
            continue
        first, end = place
        found[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
        cursor = end
    return tuple(found)


def _entities(output: str, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in output.split("\n"):
        name, bar, kind = line.rpartition(_BETWEEN.strip())
        kind = recognised(kind, labels)
        if bar and name.strip() and kind and (kind in labels or not labels):
            yield name, kind


def _place(words: Sequence[str], name: str, found: Sequence[str], cursor: int) -> tuple[int, int] | None:
    """The free run of words that `name` means: after `cursor` if there is one, spelled the same if there is one."""
    names = dict.fromkeys((name.strip(), name.strip().removeprefix("- ")))
    tries = itertools.product((cursor, 0), names, _SPELLINGS)
    return next((place for start, one, spell in tries if (place := _find(words, found, start, one, spell))), None)


def _find(
    words: Sequence[str], found: Sequence[str], start: int, name: str, spell: Callable[[str], str]
) -> tuple[int, int] | None:
    """The first free run of words at or after `start` that spells `name`."""
    wanted = "".join(map(spell, name.split()))
    for first in range(start, len(words)):
        spelt = ""
        for end in range(first, len(words)):
            if found[end] != "O":
                break
            spelt += spell(words[end])
            if spelt == wanted:
                return first, end + 1
            if not wanted.startswith(spelt):
                break
    return None


def _words(record: Labelled) -> tuple[str, ...]:
    return record.tokens or tuple(record.input.split())

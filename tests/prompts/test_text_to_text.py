"""Text for T5: what is read and what is answered is tokenized just as transformers' own T5 tokenizer does alone."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.core.records import Message
from tunesmith.objectives import span_corruption
from tunesmith.prompts.render import Template

QUESTION, ANSWER = "Is this movie review positive or negative? The film was dull.", "negative, very"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Transformers' T5 tokenizer over a vocabulary of letters and a few words."""
    from transformers import T5Tokenizer

    letters = sorted(set(f"▁{QUESTION}{ANSWER}"))
    words = ["▁Is", "▁this", "▁movie", "▁review", "▁positive", "▁negative", "▁The", "▁film", "▁was", "negative"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -2.0) for word in words)]
    return T5Tokenizer(vocab=[*pieces, *((letter, -8.0) for letter in letters)], extra_ids=5)


@pytest.fixture(scope="module")
def template(tokenizer: Any) -> Template:
    return Template(tokenizer, form="text_to_text")


def test_source_and_answer_are_those_of_transformers(tokenizer: Any, template: Template) -> None:
    source, answer = tokenizer(QUESTION)["input_ids"], tokenizer(ANSWER)["input_ids"]
    assert source[-1] == answer[-1] == tokenizer.eos_token_id
    row = template.conversation((Message("user", QUESTION), Message("assistant", ANSWER)))
    assert list(row.ids) == source + answer
    assert list(row.weights) == [0.0] * len(source) + [1.0] * len(answer)
    assert list(template.prompt((Message("user", QUESTION),))) == source
    assert template.decode(answer) == ANSWER


def test_earlier_turns_are_part_of_the_source(tokenizer: Any, template: Template) -> None:
    shot = (Message("user", "The film was dull."), Message("assistant", "negative", trained=False))
    prompt = template.prompt((*shot, Message("user", QUESTION)))
    assert list(prompt) == tokenizer(f"The film was dull.\n\nnegative\n\n{QUESTION}")["input_ids"]
    row = template.conversation((*shot, Message("user", QUESTION), Message("assistant", ANSWER)))
    assert row.ids[: len(prompt)] == prompt
    assert sum(row.weights) == len(row.ids) - len(prompt)


def test_candidates_follow_the_closed_source(tokenizer: Any, template: Template) -> None:
    found = template.candidates((Message("user", QUESTION),), ("positive", "negative"))
    expected = [tuple(tokenizer(label)["input_ids"][:-1]) for label in ("positive", "negative")]
    assert (list(found.ids), found.ended) == (expected, False)


def test_its_sentinels_are_found_in_order(tokenizer: Any) -> None:
    config = span_corruption.resolve(span_corruption.Config(), tokenizer)
    assert tokenizer.convert_ids_to_tokens(config.sentinels) == [f"<extra_id_{number}>" for number in range(5)]
    assert config.end_id == tokenizer.eos_token_id

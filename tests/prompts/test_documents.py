from __future__ import annotations

from typing import Any

import pytest

from tunesmith.prompts.documents import documents, wholes
from tunesmith.prompts.render import Template

TEXT = "The film was wonderful, funny and moving, and the acting was great."


@pytest.mark.parametrize("length", [4, 9, 16, 500])
def test_every_token_is_trained_once_and_an_end_closes_the_last_row(toy_tokenizer: Any, length: int) -> None:
    template = Template(toy_tokenizer, form="text")
    end = toy_tokenizer.eos_token_id
    ids = toy_tokenizer(TEXT)["input_ids"]
    (rows, short) = documents(template, [TEXT, "The"], max_length=length)
    assert all(2 <= len(row.ids) <= length for row in rows)
    trained = [token for row in rows for token, weight in zip(row.ids, row.weights, strict=True) if weight]
    assert trained == [*ids, end]
    assert [row.ids[0] for row in rows] == [end, *(row.ids[-1] for row in rows[:-1])]
    assert short[0].ids[-1] == end


def test_a_text_to_text_model_has_no_beginning_of_its_own(toy_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(toy_tokenizer)
    tokenizer.chat_template = None
    ((row,),) = documents(Template(tokenizer, form="text_to_text"), [TEXT], max_length=500)
    assert list(row.ids) == [*tokenizer(TEXT)["input_ids"], tokenizer.eos_token_id]


def test_text_is_written_without_turns_whatever_the_chat_template(toy_tokenizer: Any) -> None:
    from tunesmith.core.records import Message

    prompt = Template(toy_tokenizer, form="text").prompt((Message("user", TEXT),))
    assert toy_tokenizer.decode(prompt) == f"<|im_end|>{TEXT}"
    assert Template(toy_tokenizer, form="text").hash != Template(toy_tokenizer).hash


def test_wholes_are_what_the_tokenizer_makes_cut_and_counted(toy_reading_tokenizer: Any) -> None:
    made, cut = wholes(toy_reading_tokenizer, [TEXT, "The film", TEXT], max_length=9)
    ids = toy_reading_tokenizer(TEXT)["input_ids"]
    short = [*ids[:8], ids[-1]]
    assert [list(row.ids) for row in made] == [short, toy_reading_tokenizer("The film")["input_ids"], short]
    assert cut == 2
    assert wholes(toy_reading_tokenizer, [TEXT], max_length=len(ids))[1] == 0

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Encoded, Labelled, Message
from tunesmith.prompts.budget import fit_shots, shorten
from tunesmith.prompts.render import Template
from tunesmith.prompts.shots import as_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Is this movie review positive or negative?"
WORDS = "The film was wonderful funny and moving and the plot was dull and nothing worked"
LONG = " ".join(f"{WORDS} {number}" for number in range(12))


@pytest.fixture(scope="module")
def template(toy_tokenizer: PreTrainedTokenizerBase) -> Template:
    return Template(toy_tokenizer)


def write(record: Labelled) -> tuple[Message, ...]:
    parts = (INSTRUCTION, record.context, record.input)
    return (Message("user", "\n\n".join(part for part in parts if part)), Message("assistant", record.output))


def chat(record: Chat) -> tuple[Message, ...]:
    return record.messages


def text_of(template: Template, row: Encoded, trained: bool = False) -> str:
    ids = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight or not trained]
    return template.tokenizer.decode(ids)


SHOT = (Message("user", "A fine film."), Message("assistant", "positive"))
LONG_SHOT = (Message("user", WORDS), Message("assistant", "negative"))


@pytest.mark.parametrize("k", range(1, 13))
def test_as_many_shots_as_fit_and_not_one_more(template: Template, k: int) -> None:
    shots, queries = [SHOT, LONG_SHOT] * 6, [(Message("user", "Good."),), (Message("user", WORDS),)]
    needed = len(template.prompt(as_messages(shots[:k], queries[1]))) + 10
    assert fit_shots(template, shots, queries, context=needed, max_new_tokens=10) == k
    assert fit_shots(template, shots, queries, context=needed - 1, max_new_tokens=10) == k - 1


def test_no_room_no_shots_and_no_queries_give_none(template: Template) -> None:
    assert fit_shots(template, [SHOT], [(Message("user", LONG),)], context=50, max_new_tokens=10) == 0
    assert fit_shots(template, [], [(Message("user", "a"),)], context=500, max_new_tokens=10) == 0
    assert fit_shots(template, [SHOT], [], context=500, max_new_tokens=10) == 0
    assert fit_shots(template, [SHOT] * 3, [(Message("user", "a"),)], context=9999, max_new_tokens=10) == 3


ROWS = [
    Labelled("Short.", "positive"),
    Labelled(LONG, "negative", source="reviews.csv:7"),
    Labelled("Brief.", "negative"),
]


def test_rows_that_fit_are_left_as_they_are(template: Template) -> None:
    cut = shorten(ROWS, write, template, max_length=5000)
    assert list(cut.rows) == template.conversations(map(write, ROWS))
    assert (list(cut.records), cut.dropped, cut.truncated) == (ROWS, 0, 0)


def test_drop_leaves_long_rows_out_and_counts_them(template: Template) -> None:
    cut = shorten(ROWS, write, template, max_length=150, policy="drop")
    assert (list(cut.records), cut.dropped, cut.truncated) == ([ROWS[0], ROWS[2]], 1, 0)
    assert list(cut.rows) == template.conversations(map(write, cut.records))


def test_error_names_the_row_and_what_to_type(template: Template) -> None:
    with pytest.raises(
        Mistake, match=r"reviews.csv:7: got [\d,]+ tokens; expected at most 150; .* --too_long truncate"
    ):
        shorten(ROWS, write, template, max_length=150, policy="error")


@pytest.mark.parametrize("max_length", [150, 200, 280])
def test_truncating_keeps_instruction_template_and_answer_whole(template: Template, max_length: int) -> None:
    cut = shorten(ROWS, write, template, max_length=max_length)
    assert (cut.dropped, cut.truncated) == (0, 1)
    row, record = cut.rows[1], cut.records[1]
    assert max_length - 12 <= len(row.ids) <= max_length, "close to the limit"
    assert row == template.conversation(write(record))
    assert text_of(template, row, trained=True) == "negative<|im_end|>"
    assert f"{INSTRUCTION}\n\nThe film" in text_of(template, row)
    head, tail = record.input.split(" … ")
    assert LONG.startswith(f"{head} ")
    assert LONG.endswith(f" {tail}")


def test_the_longer_of_context_and_question_is_cut(template: Template) -> None:
    record = Labelled("Who was funny?", "the film", context=LONG)
    cut = shorten([record], write, template, max_length=200)
    assert cut.records[0].input == record.input
    assert len(cut.records[0].context) < len(LONG)


def test_an_answer_that_leaves_no_room_drops_its_row(template: Template) -> None:
    cut = shorten([Labelled(LONG, LONG), ROWS[0]], write, template, max_length=200)
    assert (list(cut.records), cut.dropped, cut.truncated) == ([ROWS[0]], 1, 0)
    assert all(sum(row.weights) > 0 for row in cut.rows)


def test_text_without_spaces_is_cut_too(template: Template) -> None:
    cut = shorten([Labelled("今日は雨だった。" * 60, "negative")], write, template, max_length=400)
    assert cut.truncated == 1
    assert 380 <= len(cut.rows[0].ids) <= 400


def test_tagged_tokens_lose_their_end_between_entities(template: Template) -> None:
    tokens = ("plain", "words", "here", *("Jane", "Doe", "Roe") * 40)
    tags = ("O", "O", "O", *("B-person", "I-person", "I-person") * 40)

    def names(record: Labelled) -> tuple[Message, ...]:
        return (Message("user", " ".join(record.tokens)), Message("assistant", f"{record.tags.count('B-person')}"))

    for max_length in range(120, 150, 7):
        cut = shorten([Labelled(" ".join(tokens), tokens=tokens, tags=tags)], names, template, max_length=max_length)
        (record,) = cut.records
        assert len(record.tokens) == len(record.tags)
        assert record.input == " ".join(record.tokens)
        assert record.tags[-3:] == ("B-person", "I-person", "I-person")


def exchanges(*questions: str) -> tuple[Message, ...]:
    return tuple(turn for asked in questions for turn in (Message("user", asked), Message("assistant", "It was good.")))


def test_a_chat_loses_its_earliest_exchanges_and_keeps_its_system_prompt(template: Template) -> None:
    system = Message("system", "Be kind.")
    record = Chat((system, *exchanges(*[f"{WORDS} {number}" for number in range(9)])))
    cut = shorten([record], chat, template, max_length=250)
    (kept,) = cut.records
    assert cut.truncated == 1
    assert kept.messages[0] == system
    assert kept.messages[1:] == record.messages[-len(kept.messages) + 1 :]
    assert kept.messages[1].role == "user"
    assert 1 < len(kept.messages) < len(record.messages)


def test_a_last_exchange_that_is_too_long_is_cut_in_its_question(template: Template) -> None:
    cut = shorten([Chat((*exchanges("Hi."), *exchanges(LONG)))], chat, template, max_length=200)
    (kept,) = cut.records
    assert [turn.role for turn in kept.messages] == ["user", "assistant"]
    assert kept.messages[1].content == "It was good."
    assert " … " in kept.messages[0].content


def test_prompts_can_be_shortened_for_answering(template: Template) -> None:
    cut = shorten(ROWS, lambda record: write(record)[:1], template, max_length=150, prompts=True)
    assert [row.ids for row in cut.rows] == template.prompts(write(record)[:1] for record in cut.records)
    assert len(cut.rows[1].ids) <= 150
    assert cut.truncated == 1

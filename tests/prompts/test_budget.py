from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Encoded, Labelled, Message
from tunesmith.prompts.budget import cut, fitting_shots, shortened
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
    shots, query = [SHOT, LONG_SHOT] * 6, (Message("system", "Be brief."), Message("user", WORDS))
    longest = len(template.prompt(query)) + 10
    needed = len(template.prompt(as_messages(shots[:k], query))) + 10
    assert fitting_shots(shots, longest, template, needed) == k
    assert fitting_shots(shots, longest, template, needed - 1) == k - 1


def test_no_room_and_no_shots_give_none(template: Template) -> None:
    assert fitting_shots([SHOT], 60, template, 50) == 0
    assert fitting_shots([], 60, template, 500) == 0
    assert fitting_shots([SHOT] * 3, 60, template, 9999) == 3


ROWS = [
    Labelled("Short.", "positive"),
    Labelled(LONG, "negative", source="reviews.csv:7"),
    Labelled("Brief.", "negative"),
]


def test_rows_that_fit_are_left_as_they_are(template: Template) -> None:
    kept = cut(ROWS, write, template, max_length=5000)
    assert list(kept.rows) == template.conversations(map(write, ROWS))
    assert (list(kept.records), kept.dropped, kept.truncated) == (ROWS, 0, 0)


def test_drop_leaves_long_rows_out_and_counts_them(template: Template) -> None:
    kept = cut(ROWS, write, template, max_length=150, policy="drop")
    assert (list(kept.records), kept.dropped, kept.truncated) == ([ROWS[0], ROWS[2]], 1, 0)
    assert list(kept.rows) == template.conversations(map(write, kept.records))


def test_error_names_the_row_and_what_to_type(template: Template) -> None:
    with pytest.raises(
        Mistake, match=r"reviews.csv:7: got [\d,]+ tokens; expected at most 150; .* --too_long truncate"
    ):
        cut(ROWS, write, template, max_length=150, policy="error")


@pytest.mark.parametrize("max_length", [150, 200, 280])
def test_truncating_keeps_instruction_template_and_answer_whole(template: Template, max_length: int) -> None:
    kept = cut(ROWS, write, template, max_length=max_length)
    assert (kept.dropped, kept.truncated) == (0, 1)
    row, record = kept.rows[1], kept.records[1]
    assert max_length - 12 <= len(row.ids) <= max_length, "close to the limit"
    assert row == template.conversation(write(record))
    assert text_of(template, row, trained=True) == "negative<|im_end|>"
    assert f"{INSTRUCTION}\n\nThe film" in text_of(template, row)
    head, tail = record.input.split(" … ")
    assert LONG.startswith(f"{head} ")
    assert LONG.endswith(f" {tail}")


def test_the_longer_of_context_and_question_is_cut(template: Template) -> None:
    record = Labelled("Who was funny?", "the film", context=LONG)
    kept = cut([record], write, template, max_length=200)
    assert kept.records[0].input == record.input
    assert len(kept.records[0].context) < len(LONG)


def test_an_answer_that_leaves_no_room_drops_its_row(template: Template) -> None:
    kept = cut([Labelled(LONG, LONG), ROWS[0]], write, template, max_length=200)
    assert (list(kept.records), kept.dropped, kept.truncated) == ([ROWS[0]], 1, 0)
    assert all(sum(row.weights) > 0 for row in kept.rows)


def test_text_without_spaces_is_cut_too(template: Template) -> None:
    kept = cut([Labelled("今日は雨だった。" * 60, "negative")], write, template, max_length=400)
    assert kept.truncated == 1
    assert 380 <= len(kept.rows[0].ids) <= 400


def test_tagged_tokens_lose_their_end_between_entities(template: Template) -> None:
    tokens = ("plain", "words", "here", *("Jane", "Doe", "Roe") * 40)
    tags = ("O", "O", "O", *("B-person", "I-person", "I-person") * 40)

    def names(record: Labelled) -> tuple[Message, ...]:
        return (Message("user", " ".join(record.tokens)), Message("assistant", f"{record.tags.count('B-person')}"))

    for max_length in range(120, 150, 7):
        kept = cut([Labelled(" ".join(tokens), tokens=tokens, tags=tags)], names, template, max_length=max_length)
        (record,) = kept.records
        assert len(record.tokens) == len(record.tags)
        assert record.input == " ".join(record.tokens)
        assert record.tags[-3:] == ("B-person", "I-person", "I-person")


def exchanges(*questions: str) -> tuple[Message, ...]:
    return tuple(turn for asked in questions for turn in (Message("user", asked), Message("assistant", "It was good.")))


def test_a_chat_loses_its_earliest_exchanges_and_keeps_its_system_prompt(template: Template) -> None:
    system = Message("system", "Be kind.")
    record = Chat((system, *exchanges(*[f"{WORDS} {number}" for number in range(9)])))
    kept = cut([record], chat, template, max_length=250)
    (left,) = kept.records
    assert kept.truncated == 1
    assert left.messages[0] == system
    assert left.messages[1:] == record.messages[-len(left.messages) + 1 :]
    assert left.messages[1].role == "user"
    assert 1 < len(left.messages) < len(record.messages)


def test_a_last_exchange_that_is_too_long_is_cut_in_its_question(template: Template) -> None:
    kept = cut([Chat((*exchanges("Hi."), *exchanges(LONG)))], chat, template, max_length=200)
    (left,) = kept.records
    assert [turn.role for turn in left.messages] == ["user", "assistant"]
    assert left.messages[1].content == "It was good."
    assert " … " in left.messages[0].content


def test_a_question_can_be_shortened_for_answering(template: Template) -> None:
    left = shortened(ROWS[1], lambda record: len(template.prompt(write(record)[:1])), 150)
    assert left is not None
    assert 138 <= len(template.prompt(write(left)[:1])) <= 150
    assert shortened(ROWS[1], lambda record: len(template.prompt(write(record)[:1])), 30) is None


def test_shortening_counts_tokens_a_few_times_only() -> None:
    counted: list[int] = []

    def tokens(record: Labelled) -> int:
        counted.append(len(record.input))
        return len(record.input.split())

    assert shortened(Labelled("word " * 50_000), tokens, 1000) is not None
    assert len(counted) <= 6

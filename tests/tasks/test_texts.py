from __future__ import annotations

import pytest

from tunesmith.core.records import Chat, Labelled, Message
from tunesmith.tasks import chat, generation, question_answering, summarization, translation


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({}, "Translate the text below."),
        ({"target_language": "German"}, "Translate the text below into German."),
        (
            {"source_language": "English", "target_language": "German"},
            "Translate the text below from English into German.",
        ),
        ({"instruction": "Put this into german.", "target_language": "German"}, "Put this into german."),
        ({"instruction": ""}, ""),
    ],
)
def test_languages_are_told_once(keys: dict[str, str], asked: str) -> None:
    content = translation.prompt(Labelled("A dog."), translation.Config(**keys))[0].content
    assert content == "\n\n".join(part for part in (asked, "A dog.") if part)


def test_the_best_of_several_references_counts() -> None:
    record = Labelled("Long text.", "They met.", ("They met.", "Two people met in town."))
    assert summarization.answer(record, summarization.Config()) == "They met."
    assert summarization.judge(record, "Two people met in town.", summarization.Config()).value == 1.0


def test_questions_on_one_passage_differ_only_at_their_end() -> None:
    config = question_answering.Config(instruction="Answer.")
    record = Labelled("Who?", "Jane", context="Jane won.")
    assert question_answering.prompt(record, config)[0].content == "Answer.\n\nPassage: Jane won.\n\nQuestion: Who?"
    assert question_answering.prompt(Labelled("Who?"), config)[0].content == "Answer.\n\nQuestion: Who?"


def test_no_answer_is_an_answer() -> None:
    config = question_answering.Config(unanswerable="not in the text")
    record = Labelled("Who?", "", context="Jane won.")
    assert question_answering.answer(record, config) == "not in the text"
    assert question_answering.judge(record, "Not in the text.", config).value == 1.0
    assert question_answering.judge(record, "Jane", config).value == 0.0


def test_an_instruction_for_all_rows_is_optional() -> None:
    record = Labelled("Translate.", "Ja", context="Yes")
    assert generation.prompt(record, generation.Config())[0].content == "Yes\n\nTranslate."
    assert generation.prompt(record, generation.Config(instruction="Be brief."))[0].content.startswith(
        "Be brief.\n\nYes"
    )


TALK = (
    Message("user", "Hi"),
    Message("assistant", "Hello", trained=False),
    Message("user", "Bye"),
    Message("assistant", "So long"),
)


def test_a_chat_is_learned_whole_and_asked_for_its_last_reply() -> None:
    record, config = Chat(TALK), chat.Config()
    assert chat.conversation(record, config) == TALK
    assert chat.prompt(record, config) == TALK[:3]
    assert chat.answer(record, config) == "So long"


def test_the_system_prompt_is_for_chats_that_have_none() -> None:
    config, own = chat.Config(system="Be kind."), Message("system", "Be rude.")
    assert chat.prompt(Chat(TALK), config)[0] == Message("system", "Be kind.")
    assert chat.conversation(Chat((own, *TALK)), config) == (own, *TALK)


def test_a_chat_that_waits_for_its_answer() -> None:
    record = Chat(TALK[:3])
    assert chat.prompt(record, chat.Config()) == TALK[:3]
    assert chat.answer(record, chat.Config()) == ""


def test_questions_without_an_answer_are_judged_as_squad_2_does() -> None:
    config = question_answering.Config()
    no_answer, answered = Labelled("Who?", context="Jane won."), Labelled("Who?", "Jane", context="Jane won.")
    for output in ("unanswerable", "Unanswerable.", ""):
        assert question_answering.judge(no_answer, output, config).prediction == ""
        assert question_answering.judge(no_answer, output, config).value == 1.0
        assert question_answering.judge(answered, output, config).value == 0.0
    assert question_answering.judge(answered, "Jane", config).references == ("Jane",)
    written = Labelled("Who?", "unanswerable", context="Jane won.")  # data that use the word themselves
    assert question_answering.judge(written, "Jane", config) == question_answering.judge(no_answer, "Jane", config)

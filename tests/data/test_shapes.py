"""alpaca, sharegpt (messages) and prompt_completion, in every carrier, for conversations and for single answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import Mistakes
from tunesmith.core.records import Chat, Message
from tunesmith.data import sharegpt

Write = Callable[..., str]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def first(read_as: Any, write: Write, kind: str, row: dict[str, Any], **more: Any) -> Any:
    return read_as(kind, write("a.jsonl", lines(row)), **more).records[0]


def test_alpaca_puts_the_input_below_the_instruction(write: Write, read_as: Any) -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    record = first(read_as, write, "texts", row)
    assert (record.input, record.output) == ("Add.\n\n1 and 2", "3")
    record = first(read_as, write, "texts", {**row, "input": ""})
    assert record.input == "Add."
    record = first(read_as, write, "texts", {"instruction": "Who?", "context": "Anna sang.", "response": "Anna"})
    assert (record.input, record.output) == ("Who?\n\nAnna sang.", "Anna")


def test_alpaca_with_a_system_prompt_or_history_is_a_conversation(write: Write, read_as: Any) -> None:
    row = {"instruction": "And 3?", "system": "Be brief.", "history": [["1 and 2?", "3"]], "output": "6"}
    assert first(read_as, write, "chat", row).messages == (
        Message("system", "Be brief."),
        Message("user", "1 and 2?"),
        Message("assistant", "3"),
        Message("user", "And 3?"),
        Message("assistant", "6"),
    )
    alone = first(read_as, write, "chat", {"instruction": "Hi", "system": "Be brief.", "output": "Ho"})
    assert [turn.role for turn in alone.messages] == ["system", "user", "assistant"]
    with pytest.raises(Mistakes, match="5 turns; expected one question and one answer, or the task chat"):
        first(read_as, write, "texts", row)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_a_shape_is_found_in_any_carrier(write: Write, read_as: Any, suffix: str) -> None:
    rows = [{"instruction": "Add.", "input": "1", "output": "2"}]
    table = "instruction,input,output\nAdd.,1,2\n"
    text = {"jsonl": lines(*rows), "json": json.dumps(rows), "csv": table}[suffix]
    reading = read_as("texts", write(f"a.{suffix}", text))
    assert (reading.records[0].input, reading.formats) == ("Add.\n\n1", ("alpaca",))
    assert f"read as alpaca ({suffix})" in reading.notes[0]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"prompt": "Hi", "completion": "Ho"},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"instruction": "Hi", "output": "Ho"},
        {"question": "Hi", "answer": "Ho"},
        {"goal": "Hi", "target_text": "Ho"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, TURNS[1]]},
    ],
)
def test_one_question_and_answer_in_every_spelling(write: Write, read_as: Any, row: dict[str, Any]) -> None:
    record = first(read_as, write, "chat", row)
    assert isinstance(record, Chat)
    assert [(turn.role, turn.content) for turn in record.messages] == [("user", "Hi"), ("assistant", "Ho")]
    assert record.messages[-1].trained
    record = first(read_as, write, "texts", row)
    assert (record.input, record.output) == ("Hi", "Ho")


def test_a_column_of_turns_of_another_name_is_read_when_told(write: Write, read_as: Any) -> None:
    record = first(read_as, write, "chat", {"talk": TURNS, "id": 1}, columns={"messages": "talk"})
    assert len(record.messages) == 2


def test_weights_say_which_turns_are_learned(write: Write, read_as: Any) -> None:
    turns = [*TURNS, TURNS[0], {**TURNS[1], "weight": 0}, TURNS[0], {**TURNS[1], "train": False}, *TURNS]
    record = first(read_as, write, "chat", {"messages": turns})
    assert [turn.trained for turn in record.messages if turn.role == "assistant"] == [True, False, False, True]


def test_only_the_completion_of_a_prompt_of_messages_is_learned(write: Write, read_as: Any) -> None:
    record = first(read_as, write, "chat", {"prompt": [*TURNS, TURNS[0]], "completion": [TURNS[1]]})
    assert [turn.trained for turn in record.messages if turn.role == "assistant"] == [False, True]


def test_the_system_column_stands_first(write: Write, read_as: Any) -> None:
    record = first(read_as, write, "chat", {"system": "Be kind.", "conversations": TURNS})
    assert record.messages[0] == Message("system", "Be kind.")


def test_a_question_at_the_end_is_left_out_and_told_or_wanted(write: Write, read_as: Any) -> None:
    path = write("a.jsonl", lines({"messages": [*TURNS, TURNS[0]]}))
    reading = read_as("chat", path)
    assert len(reading.records[0].messages) == 2
    assert any("the turn is left out (1 row)" in note for note in reading.notes)
    assert len(read_as("chat", path, inputs_only=True).records[0].messages) == 3


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        ([], "got .*; expected a list of turns"),
        ("Hi", "got 'Hi'; expected a list of turns"),
        (TURNS[:1], "no turn of the assistant to learn from"),
        ([{**TURNS[1], "weight": 0}], "turn 1 is the assistant's; expected user and assistant by turns"),
        ([TURNS[0], TURNS[0], TURNS[1]], "turn 2 is the user's; expected"),
        ([TURNS[0], {**TURNS[1], "weight": 0}], "no turn of the assistant to learn from"),
        ([{"role": "usr", "content": "Hi"}, TURNS[1]], "turn 1: the role 'usr' is not known; did you mean 'user'"),
        ([{"role": "tool", "content": "Hi"}, TURNS[1]], "turn 1: the role 'tool' is not known; known: assistant"),
        ([TURNS[0], {"role": "assistant", "content": " "}], "turn 2 is empty"),
        ([TURNS[0], {"role": "assistant", "content": None}], "turn 2 is empty"),
        ([TURNS[0], {"role": "assistant", "content": 3}], "turn 2: got 3; expected text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, TURNS[1]], "turn 1: got a part that is not text"),
        (["Hi", "Ho"], "turn 1: got 'Hi'; expected an object with role and content"),
    ],
)
def test_a_conversation_out_of_order_is_a_bad_row_by_its_turn(
    write: Write, read_as: Any, turns: Any, complaint: str
) -> None:
    path = write("a.jsonl", lines({"messages": TURNS}, {"messages": turns}))
    with pytest.raises(Mistakes, match=rf"a\.jsonl:2: messages: {complaint}"):
        read_as("chat", path)


@pytest.mark.parametrize("name", ["sharegpt", "messages", *sharegpt.ALSO])
def test_the_format_has_the_names_people_have_for_it(write: Write, read_as: Any, name: str) -> None:
    path = write("a.jsonl", lines({"turns": TURNS}))
    assert read_as("chat", path, format=name).formats == ("sharegpt",)


@pytest.mark.parametrize(
    ("asked", "answered"), [("prompt", "completion"), ("question", "answer"), ("user", "assistant")]
)
def test_a_system_column_stands_before_the_conversation(write: Write, read_as: Any, asked: str, answered: str) -> None:
    row = {asked: "Hi", answered: "Ho", "system": "Be brief."}
    assert [turn.role for turn in first(read_as, write, "chat", row).messages] == ["system", "user", "assistant"]
    plain = first(read_as, write, "chat", {**row, "system": ""})
    assert [turn.role for turn in plain.messages] == ["user", "assistant"]


def test_a_system_column_beside_the_turns_and_in_a_task_of_single_answers(write: Write, read_as: Any) -> None:
    row = {"talk": TURNS, "system_prompt": "Be brief."}
    record = first(read_as, write, "chat", row, columns={"messages": "talk"})
    assert record.messages[0] == Message("system", "Be brief.")
    record = first(
        read_as, write, "chat", {"talk": TURNS, "told": "Be long."}, columns={"messages": "talk", "system": "told"}
    )
    assert record.messages[0] == Message("system", "Be long.")
    own = [{"role": "system", "content": "Mine."}, *TURNS]
    record = first(read_as, write, "chat", {**row, "talk": own}, columns={"messages": "talk"})
    assert record.messages[0] == Message("system", "Mine.")
    record = first(read_as, write, "texts", {"prompt": "Hi", "completion": "Ho", "system": "Be brief."})
    assert (record.input, record.output) == ("Be brief.\n\nHi", "Ho")

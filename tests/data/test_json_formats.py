"""jsonl, json and squad: broken JSON by its line, rows by theirs."""

from __future__ import annotations

import json as standard
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import Mistake
from tunesmith.data import json, jsonl, squad
from tunesmith.data._objects import elements
from tunesmith.data._row import Options, Row
from tunesmith.data._spec import format_of

Write = Callable[..., str]
LINES = [standard.dumps({"text": f"row {number}"}) for number in range(1, 10)]


def rows(module: Any, path: str) -> list[Row]:
    return list(module.rows(path, Options()))


def test_broken_json_at_line_7_is_one_bad_row_and_the_rest_is_read(write: Write) -> None:
    lines = [*LINES[:6], '{"text": "cut', *LINES[7:]]
    got = rows(jsonl, path := write("a.jsonl", "\n".join(lines)))
    (bad,) = [row for row in got if row.problem]
    assert bad.source == f"{path}:7"
    assert bad.problem == "broken JSON at column 10: unterminated string starting at"
    assert len(got) == 9


def test_broken_json_at_line_7_of_an_array_ends_the_reading_there(write: Write) -> None:
    lines = [f"{line}," for line in LINES]
    lines[5] = lines[5].replace(":", "")
    with pytest.raises(Mistake, match=r"a\.json:7: broken JSON at column \d+: expecting"):
        rows(json, write("a.json", "[\n" + "\n".join(lines)[:-1] + "\n]"))


@pytest.mark.parametrize(
    ("line", "problem"), [("[1, 2]", "got a list"), ("3", "got a number"), ("null", "got null"), ("true", "got true")]
)
def test_a_line_that_is_no_object_is_a_bad_row(write: Write, line: str, problem: str) -> None:
    (_, bad) = rows(jsonl, write("a.jsonl", f"{LINES[0]}\n{line}\n"))
    assert bad.problem.startswith(problem)


def test_blank_lines_are_passed_over_and_counted_as_lines(write: Write) -> None:
    got = rows(jsonl, write("a.jsonl", f"{LINES[0]}\n\n  \n{LINES[1]}"))
    assert [row.source.rpartition(":")[2] for row in got] == ["1", "4"]


def test_what_other_programs_take_for_ends_of_lines_stays_inside_a_text(write: Write) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive"
    (row,) = rows(jsonl, write("a.jsonl", standard.dumps({"text": text}, ensure_ascii=False)))
    assert row.fields == {"text": text}


def test_strings_are_rows_of_text(write: Write) -> None:
    assert [row.fields for row in rows(json, write("a.json", '["one", "two"]'))] == [{"text": "one"}, {"text": "two"}]


def test_rows_of_an_array_have_the_line_they_begin_on_or_their_number(write: Write) -> None:
    values = [{"text": "a"}, {"text": "b"}]
    long = rows(json, write("a.json", standard.dumps(values, indent=1)))
    assert [row.source.rpartition(":")[2] for row in long] == ["2", "5"]
    short = rows(json, write("b.json", standard.dumps(values)))
    assert [row.source.rpartition(":")[2] for row in short] == ["row 1", "row 2"]


def test_an_object_with_one_list_gives_its_rows(write: Write) -> None:
    path = write("a.json", '{"version": 1,\n "data": [\n  {"text": "a"}\n ],\n "authors": ["me"]}')
    assert [(row.fields, row.source) for row in rows(json, path)] == [({"text": "a"}, f"{path}:3")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"train": [], "test": []}', r"an object with 2 lists \(train, test\); expected"),
        ('{"text": "a"}', "one object without a list"),
        ("3", "got 3; expected an array"),
        ('[{"text": "a"}] [', "a second value begins; expected one array, or JSON Lines"),
    ],
)
def test_what_holds_no_rows_is_a_mistake(write: Write, text: str, complaint: str) -> None:
    with pytest.raises(Mistake, match=complaint):
        rows(json, write("a.json", text))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", "\n".join(LINES), "jsonl"),
        ("a.jsonl", standard.dumps([{"text": "a"}], indent=1), "json"),
        ("a.json", '{"data": [{"text": "a"}]}', "json"),
        ("a.json", '{"text": "a"}', "jsonl"),
        ("a.txt", "\n".join(LINES), "jsonl"),
        ("noname", "\n".join(LINES), "jsonl"),
        ("a.jsonl", standard.dumps({"text": "x" * 100_000}), "jsonl"),
        ("a.json", standard.dumps([{"text": "x" * 100_000}]), "json"),
        ("a.jsonl", '{"broken', "jsonl"),
    ],
)
def test_the_content_tells_lines_from_an_array_whatever_the_suffix(
    write: Write, name: str, text: str, expected: str
) -> None:
    assert format_of(write(name, text)) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(json_values), st.sampled_from([None, 0, 2]))
def test_the_elements_of_an_array_are_those_the_standard_library_sees(values: list[Any], indent: int | None) -> None:
    text = standard.dumps(values, indent=indent)
    assert [value for value, _ in elements("a.json", text, 0)] == values


def squad_file(*questions: dict[str, Any]) -> str:
    return standard.dumps({"data": [{"paragraphs": [{"context": "It rained.", "qas": list(questions)}]}]})


def test_a_question_has_its_passage_and_every_different_answer(write: Write) -> None:
    answers = [{"text": "rain"}, {"text": "It rained"}, {"text": "rain"}]
    (row,) = rows(squad, write("a.json", squad_file({"question": "What?", "answers": answers})))
    assert row.fields == {"input": "What?", "context": "It rained.", "output": ["rain", "It rained"]}


def test_a_question_without_an_answer_has_an_empty_list_and_one_not_annotated_has_none(write: Write) -> None:
    impossible = {"question": "Who?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "It"}]}
    got = rows(squad, write("a.json", squad_file(impossible, {"question": "Why?"})))
    assert got[0].fields["output"] == []
    assert "output" not in got[1].fields


def test_a_squad_file_without_questions_is_a_mistake(write: Write) -> None:
    with pytest.raises(Mistake, match="no questions; expected"):
        rows(squad, write("a.json", squad_file()))

"""conll, and tags in one scheme whichever they come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import Mistakes
from tunesmith.data import conll
from tunesmith.data._row import BadField, Options, Row
from tunesmith.data._spec import format_of
from tunesmith.data._tags import to_bio

Write = Callable[..., str]


def rows(path: str) -> list[Row]:
    return list(conll.rows(path, Options()))


def test_sentences_end_at_empty_lines_also_those_with_a_tab(write: Write) -> None:
    path = write("a.conll", "Anna\tB-person\nsings\tO\n\t\nin\tO\nBerlin\tB-place\n\n\nYes\tO")
    assert [row.fields["tokens"] for row in rows(path)] == [["Anna", "sings"], ["in", "Berlin"], ["Yes"]]
    assert [row.source for row in rows(path)] == [f"{path}:1", f"{path}:4", f"{path}:8"]


def test_the_columns_between_are_kept_and_docstart_is_no_token(write: Write) -> None:
    start = "-DOCSTART- -X- -X- O\n\n"
    text = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n"
    first, second = rows(write("eng.train", f"{start}{text}{start}Germany NNP B-NP B-LOC\n"))
    assert first.fields["column_2"] == ["NNP", "VBZ"]
    assert first.fields["tags"] == ["B-ORG", "O"]
    assert second.fields["tokens"] == ["Germany"]


def test_a_comment_is_no_token_and_a_hashtag_is_one(write: Write) -> None:
    text = "# id = 7\n# text = #hello I said\n#hello\tB-tag\n#\tO\nI\tO\n\n# text = O\nBye\tO\n"
    first, second = rows(write("a.conll", text))
    assert first.fields["tokens"] == ["#hello", "#", "I"]
    assert second.fields["tokens"] == ["Bye"]


def test_a_token_may_hold_blanks_where_tabs_separate(write: Write) -> None:
    (row,) = rows(write("a.conll", "New York\tB-place\nis\tO\n"))
    assert row.fields["tokens"] == ["New York", "is"]


def test_a_line_without_its_tag_makes_its_sentence_a_bad_row_by_line(write: Write, read_as: Any) -> None:
    path = write("a.conll", "Anna\tB-person\nsings\n\nYes\tO\nhe\tO\nis\tO\n")
    bad, good = rows(path)
    assert (bad.source, bad.problem) == (f"{path}:2", "token 'sings' stands in 1 columns; expected 2")
    assert good.fields
    with pytest.raises(Mistakes, match=r"a\.conll:2: token 'sings'"):
        read_as("tags", path)


@pytest.mark.parametrize("name", ["a.annotated", "a.txt", "a.tsv", "a.gz", "train"])
def test_tags_at_the_end_of_lines_tell_the_format_whatever_the_suffix(write: Write, name: str) -> None:
    assert format_of(write(name, "Anna\tB-person\nsings\tO\n\nin\tO\nBerlin\tI-place\n")) == "conll"


def test_bare_tokens_are_read_for_tagging(write: Write, read_as: Any) -> None:
    path = write("a.conll", "Anna\nsings\n\nBye\n")
    reading = read_as("tags", path, inputs_only=True)
    assert [(record.input, record.tokens, record.tags) for record in reading.records] == [
        ("Anna sings", ("Anna", "sings"), ()),
        ("Bye", ("Bye",), ()),
    ]


def test_records_have_tokens_tags_and_the_words_as_input(write: Write, read_as: Any) -> None:
    reading = read_as("tags", write("a.conll", "Anna\tB-person\nLee\tI-person\nsings\tO\n"))
    (record,) = reading.records
    assert record.input == "Anna Lee sings"
    assert record.tags == ("B-person", "I-person", "O")
    assert reading.labels == ("person",)


@pytest.mark.parametrize(
    ("tags", "bio"),
    [
        ("O B-a I-a O", "O B-a I-a O"),
        ("I-a I-a O I-b", "B-a I-a O B-b"),  # IOB1: I- begins an entity
        ("I-a B-a I-b", "B-a B-a B-b"),
        ("S-a B-b I-b E-b O", "B-a B-b I-b I-b O"),  # BIOES
        ("U-a B-b L-b U-b", "B-a B-b I-b B-b"),  # BILOU
        ("B-a E-a I-a", "B-a I-a B-a"),  # an entity has ended
        ("B-creative-work I-creative-work", "B-creative-work I-creative-work"),
    ],
)
def test_every_scheme_becomes_bio(tags: str, bio: str) -> None:
    assert to_bio(tags.split(), "tags") == tuple(bio.split())


@pytest.mark.parametrize("tag", ["NNP", "B-", "X-a", "", "b-a"])
def test_a_tag_of_no_scheme_is_refused(tag: str) -> None:
    with pytest.raises(BadField, match="is of no scheme; expected O, B-kind or I-kind"):
        to_bio(["O", tag], "pos")


def test_a_scheme_that_was_changed_is_told(write: Write, read_as: Any) -> None:
    reading = read_as("tags", write("a.conll", "Anna\tI-person\nLee\tI-person\n\nYes\tO\n"))
    assert reading.records[0].tags == ("B-person", "I-person")
    assert any("tags are put into BIO" in note and "(1 row)" in note for note in reading.notes)


def test_the_wrong_column_the_wrong_length_and_the_wrong_kind_are_told(write: Write, read_as: Any) -> None:
    path = write("a.conll", "Anna NNP B-person\nsings VBZ O\n")
    with pytest.raises(Mistakes, match="column_2: tag 'NNP' is of no scheme"):
        read_as("tags", path, columns={"tags": "column_2"})
    with pytest.raises(Mistakes, match=r"'person' is not in the list \(persons, places\); did you mean 'persons'"):
        read_as("tags", path, labels=("persons", "places"))
    path = write("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n{"tokens": ["a", " "], "tags": ["O", "O"]}\n')
    with pytest.raises(Mistakes) as caught:
        read_as("tags", path)
    assert caught.value.lines == (
        f"{path}:1: tags: 1 tags for 2 tokens; expected one each",
        f"{path}:2: tokens: token 2 is empty",
    )


def test_numbered_tags_need_names(write: Write, read_as: Any) -> None:
    path = write("a.jsonl", '{"words": ["Anna", "Lee"], "ner_tags": [1, 2]}\n')
    with pytest.raises(Mistakes, match="tags are numbers; write `label_values:"):
        read_as("tags", path)
    names = {0: "O", 1: "B-person", 2: "I-person"}
    reading = read_as("tags", {"path": path, "label_values": names})
    assert reading.records[0].tags == ("B-person", "I-person")

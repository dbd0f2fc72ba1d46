"""csv and tsv: quotes, headers that are or are not there, ragged rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data import csv, tsv
from tunesmith.data._row import Options, Row

Write = Callable[..., str]


def rows(path: str, header: bool | None = None) -> list[Row]:
    module = tsv if path.endswith((".tsv", ".tab")) else csv
    return list(module.rows(path, Options(header=header)))


def test_cells_with_commas_quotes_and_lines_keep_the_line_they_begin_on(write: Write) -> None:
    path = write("a.csv", 'text,label\n"one, two",a\n"says ""hi""\nthen goes",b\nlast,c\n')
    got = rows(path)
    assert [row.fields["text"] for row in got] == ["one, two", 'says "hi"\nthen goes', "last"]
    assert [row.source.rpartition(":")[2] for row in got] == ["2", "3", "5"]


def test_rows_of_unequal_cells_are_bad_rows_by_line_and_the_others_are_read(write: Write) -> None:
    got = rows(write("a.csv", "text,label\ngood,a\nwell, well,b\nlonely\nbad,b\n"))
    assert [row.problem for row in got] == [
        "",
        "3 cells; the header has 2; put text that holds the delimiter in quotes",
        "1 cell; the header has 2; add what is missing",
        "",
    ]
    assert got[1].source.endswith(":3")


def test_a_quote_that_never_closes_is_found_where_it_opens(write: Write) -> None:
    got = rows(write("a.csv", 'text,label\ngood,a\n"bad,b\nmore,a\nmore,a\n'))
    assert got[-1].source.endswith(":3")
    assert "never closes" in got[-1].problem


def test_a_quote_in_the_middle_of_a_cell_is_one_bad_row(write: Write) -> None:
    got = rows(write("a.csv", 'text,label\n"so" good,a\nbad,b\n'))
    assert "double a quote" in got[0].problem
    assert got[1].fields == {"text": "bad", "label": "b"}


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_a_csv_of_another_delimiter_is_read(write: Write, delimiter: str) -> None:
    got = rows(write("a.csv", f'"text, with comma"{delimiter}label\ngood, or so{delimiter}a\n'))
    assert got[0].fields == {"text, with comma": "good, or so", "label": "a"}


def test_a_document_longer_than_the_csv_module_allows_is_read(write: Write) -> None:
    long = "word " * 40_000
    assert rows(write("a.csv", f"text,label\n{long},a\n"))[0].fields["text"] == long


@pytest.mark.parametrize(
    "text",
    [
        "a fine film\t1\na bad film\t0\n",  # a number
        "a fine film\tpositive\nbad\tnegative\nvery good\tpositive\nso bad\tnegative\nmeh\tpositive\n",  # a label
        "It was all so very long ago\tDas ist alles lange her\nYes\tJa\n",  # sentences
        "That is it.\tDas ist es.\nYes\tJa\n",
        "word\tword\none\ttwo\n",  # twice the same
    ],
)
def test_a_first_line_that_is_a_row_is_read_as_one_and_it_is_told(write: Write, text: str) -> None:
    path = write("a.tsv", text)
    got = rows(path)
    assert len(got) == text.count("\n")
    assert set(got[0].fields) == {"column_1", "column_2"}
    assert got[0].note == f"{path} has no header: its columns are called column_1, column_2"
    assert got[1].note == ""


def test_a_header_is_a_header(write: Write) -> None:
    path = write("a.csv", "text,label\ngood,a\nbad,b\ngood,a\nbad,b\n")
    assert (len(rows(path)), rows(path)[0].note) == (4, "")
    assert len(rows(path, header=False)) == 5


def test_a_first_line_taken_for_a_header_on_slight_evidence_is_told(write: Write) -> None:
    (row,) = rows(write("a.csv", "Hello world,Hallo Welt\nGood day,Guten Tag\n"))
    assert "is taken for column names; write `header: false` if it is not" in row.note


def test_two_columns_of_one_name_and_a_header_alone_are_mistakes(write: Write) -> None:
    with pytest.raises(Mistake, match=r"a\.csv:1: two columns 'text'; expected"):
        rows(write("a.csv", "text,text\ngood,a\n"), header=True)
    with pytest.raises(Mistake, match=r"a header \(text, label\) and no rows"):
        rows(write("b.csv", "text,label\n"))


def test_a_quote_is_a_character_in_a_tsv(write: Write) -> None:
    got = rows(write("a.tsv", 'text\tlabel\n"so good\ta\n"quoted"\tb\nsay "no"\ta\n'))
    assert [row.fields["text"] for row in got] == ['"so good', '"quoted"', 'say "no"']


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [('"one\ttwo"', "one\ttwo"), ('"one\ntwo"', "one\ntwo"), ('"says ""hi"""', 'says "hi"')],
)
def test_a_tsv_written_as_csv_with_tabs_is_read_as_such(write: Write, cell: str, meaning: str) -> None:
    got = rows(write("a.tsv", f"text\tlabel\n{cell}\ta\nplain\tb\n"))
    assert [row.fields["text"] for row in got] == [meaning, "plain"]


def test_a_tsv_with_every_cell_quoted_is_unquoted(write: Write) -> None:
    got = rows(write("a.tsv", '"text"\t"label"\n"good"\t"a"\n'))
    assert got[0].fields == {"text": "good", "label": "a"}


def test_lines_may_end_as_on_windows(write: Write) -> None:
    for name in ("a.csv", "a.tsv"):
        delimiter = "\t" if name == "a.tsv" else ","
        got = rows(write(name, f"text{delimiter}label\r\ngood{delimiter}a\r\n"))
        assert got[0].fields == {"text": "good", "label": "a"}

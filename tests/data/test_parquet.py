"""parquet: rows by number, class names where the file keeps them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data import parquet
from tunesmith.data._row import Options
from tunesmith.data._spec import format_of

FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["negative", "positive"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["O", "B-person"], "_type": "ClassLabel"}, "_type": "List"},
}


def table(path: Path, with_names: bool) -> str:
    made = pyarrow.table({"text": ["good", "bad"], "label": [1, -1], "tags": [[0, 1], [0]]})
    if with_names:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    pyarrow.parquet.write_table(made, path)
    return str(path)


def test_numbers_have_the_names_that_datasets_left_in_the_file(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", with_names=True)
    first, second = parquet.rows(path, Options())
    assert first.fields == {"text": "good", "label": "positive", "tags": ["O", "B-person"]}
    assert second.fields["label"] is None
    assert (first.source, second.source) == (f"{path}:row 1", f"{path}:row 2")


def test_without_names_numbers_stay_numbers(tmp_path: Path) -> None:
    first, _ = parquet.rows(table(tmp_path / "a.parquet", with_names=False), Options())
    assert first.fields["label"] == 1


def test_the_first_bytes_tell_it_also_compressed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(gzip.compress(Path(table(tmp_path / "a.parquet", with_names=False)).read_bytes()))
    assert format_of(str(path)) == "parquet"
    assert len(list(parquet.rows(str(path), Options()))) == 2


def test_a_broken_file_and_one_without_rows_are_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(Mistake, match=r"a\.parquet: not readable as parquet"):
        list(parquet.rows(str(path), Options()))
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(Mistake, match="no rows; expected"):
        list(parquet.rows(str(path), Options()))

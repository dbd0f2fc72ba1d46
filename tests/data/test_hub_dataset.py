"""A hub dataset, with the library's loading put aside: names for numbers, and every way it can fail in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data import hub
from tunesmith.data._row import Options
from tunesmith.data._spec import format_of

datasets = pytest.importorskip("datasets")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`load_dataset` gives a small dataset and notes how it was asked, and whether the network was off limits."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-person"])),
        }
    )
    rows = {"text": ["good", "bad"], "label": [1, 0], "tags": [[0, 1], [0]]}
    made, asked = datasets.Dataset.from_dict(rows, features=features), []

    def load(path: str, name: str | None, *, split: str, revision: str | None) -> Any:
        asked.append((path, name, split, revision, datasets.config.HF_HUB_OFFLINE))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_rows_have_names_for_numbers_and_say_their_split(loaded: list[Any]) -> None:
    first, second = hub.rows("hub:imdb", Options(split="test", subset="plain"))
    assert first.fields == {"text": "good", "label": "positive", "tags": ["O", "B-person"]}
    assert second.source == "hub:imdb[test]:row 2"
    assert loaded[0][:4] == ("imdb", "plain", "test", None)


def test_offline_the_library_is_told_and_left_as_it_was(loaded: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    list(hub.rows("owner/name", Options(offline=True)))
    list(hub.rows("owner/name", Options(offline=False)))
    assert [asked[-1] for asked in loaded] == [True, False]
    assert datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("error", "offline", "complaint"),
    [
        (datasets.exceptions.DatasetNotFoundError("no"), False, "no dataset of the hub is called so; check the name"),
        (datasets.exceptions.DatasetNotFoundError("no"), True, "not in the cache and we are offline"),
        (ConnectionError("Couldn't reach it"), False, "Couldn't reach it; read it once with a network"),
        (ConnectionError("Couldn't reach it"), True, "we are offline and it is not in the cache"),
        (
            ValueError('Unknown split "tset". Should be one of [...]'),
            False,
            "Unknown split .* set `split:` or `subset:`",
        ),
    ],
)
def test_what_goes_wrong_is_one_line(
    error: Exception, offline: bool, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(Mistake, match=f"^owner/name: .*{complaint}"):
        list(hub.rows("owner/name", Options(offline=offline)))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Mistake, match=r"type `pip install 'tunesmith\[hub\]'`"):
        list(hub.rows("owner/name", Options()))


def test_a_name_with_a_slash_is_a_dataset_unless_it_looks_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert format_of("stanfordnlp/imdb") == "hub"
    assert format_of("hub:imdb") == "hub"
    assert format_of("folder/train.csv") == "csv"
    (tmp_path / "stanfordnlp").mkdir()
    with pytest.raises(Mistake, match=r"stanfordnlp/imdb: no such file; .* a dataset of the hub is written"):
        format_of("stanfordnlp/imdb")

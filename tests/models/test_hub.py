from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from tunesmith.core.errors import Mistake
from tunesmith.models.hub import describe, download


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        raise errors.LocalEntryNotFoundError("not here") if local_files_only else error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)


def of_kind(kind: type[Exception]) -> Exception:
    """An error of the hub's without the web answer it is usually made from."""
    error = kind.__new__(kind)
    error.args = ("said the hub\nat length",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (of_kind(errors.GatedRepoError), "asks for an agreement; accept it on its page and set HF_TOKEN"),
        (of_kind(errors.RepositoryNotFoundError), "there is no folder 'a/b' here, and the hub has no such model"),
        (of_kind(errors.RevisionNotFoundError), "there is no revision 'v9'; leave @v9 out"),
        (ConnectionError("no route to host"), "cannot be reached .no route to host.; check the network"),
        (of_kind(errors.HfHubHTTPError.__bases__[0]), "cannot be reached"),
        (OSError(28, "No space left on device"), "the disk is full; .* set HF_HOME"),
    ],
)
def test_what_the_hub_says_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    failing(monkeypatch, error)
    with pytest.raises(Mistake, match=message) as caught:
        download("a/b", "v9", offline=False)
    assert "\n" not in str(caught.value)


def test_only_safe_files_are_asked_for(monkeypatch: pytest.MonkeyPatch, toy_folder: Path) -> None:
    asked: list[SimpleNamespace] = []

    def snapshot_download(repo: str, *, local_files_only: bool = False, **keys: Any) -> str:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not here")
        asked.append(SimpleNamespace(**keys))
        return str(toy_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert download("a/b", offline=False) == toy_folder
    monkeypatch.setenv("TUNESMITH_ALLOW_PICKLE", "1")
    download("a/b", offline=False)
    describe("a/b", offline=False)
    assert "*.bin" not in asked[0].allow_patterns
    assert "*.safetensors" in asked[0].allow_patterns
    assert not any(pattern.endswith(".py") for pattern in asked[0].allow_patterns)
    assert "*.bin" in asked[1].allow_patterns
    assert asked[2].allow_patterns == ["config.json", "README.md"]
    there = ["config.json", *(f"{folder}/config.json" for folder in ("onnx", "1_Pooling", "10_Dense", "2_Normalize"))]
    for one in asked[:2]:
        taken = filter_repo_objects(there, allow_patterns=one.allow_patterns, ignore_patterns=one.ignore_patterns)
        assert list(taken) == ["config.json", "1_Pooling/config.json"]


def test_nothing_is_asked_for_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, AssertionError("the network was tried"))
    for ask in (download, describe):
        with pytest.raises(Mistake, match="offline"):
            ask("a/b", offline=True)

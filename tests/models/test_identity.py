from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tunesmith.models import identity as module
from tunesmith.models.identity import identity


def test_the_same_weights_elsewhere_are_the_same_model(toy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "other-name")
    assert identity(tmp_path / "other-name") == identity(toy_folder)


def test_one_changed_byte_is_another_model(toy_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    before = identity(tmp_path / "copy")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(0, 1))
    assert identity(tmp_path / "copy") != before


def test_it_is_computed_once(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    first = identity(tmp_path / "copy")
    monkeypatch.setattr(module, "sha256_of", lambda _: pytest.fail("hashed again"))
    assert identity(tmp_path / "copy") == first


def test_a_cache_that_cannot_be_written_or_read_does_no_harm(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = identity(toy_folder)
    (tmp_path / "home").write_text("a file in the way")
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    assert identity(toy_folder) == expected
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "fresh"))
    identity(toy_folder)
    next((tmp_path / "fresh" / "identities").iterdir()).write_text("{broken")
    assert identity(toy_folder) == expected

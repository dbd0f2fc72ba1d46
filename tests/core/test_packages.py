from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import packages, progress
from tunesmith.core.errors import Mistake
from tunesmith.core.packages import cache_home, fetch_package, offline


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the registry, holding one wheel; an empty cache; the network allowed."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TUNESMITH_OFFLINE", raising=False)
    wheel(folder / "small_thing-1.0-py3-none-any.whl")
    return folder


def wheel(path: Path) -> None:
    name, version, *_ = path.name.split("-")
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/data.txt": "hello",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {key: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for key, text in files.items()}
    record = "".join(f"{key},sha256={digest[key].decode().rstrip('=')},{len(files[key])}\n" for key in files)
    with zipfile.ZipFile(path, "w") as archive:
        for key, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(key, text)


def sha256(shelf: Path) -> str:
    return hashlib.sha256(next(shelf.iterdir()).read_bytes()).hexdigest()


def test_a_package_is_pulled_once_and_used_offline_after(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sha256(shelf)
    first = fetch_package("small-thing", "1.0", expected)
    assert zipfile.ZipFile(first).read("small_thing/data.txt") == b"hello"
    assert first.is_relative_to(cache_home())
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    monkeypatch.setattr(packages, "_run", lambda *_: pytest.fail("pip was called again"))
    assert fetch_package("small-thing", "1.0", expected, offline=True) == first


def test_a_wrong_hash_is_refused_with_both_and_nothing_is_kept(shelf: Path) -> None:
    with pytest.raises(Mistake, match=f"got sha256 {sha256(shelf)}; expected {'0' * 64}"):
        fetch_package("small-thing", "1.0", "0" * 64)
    assert [path for path in (cache_home() / "packages").iterdir() if path.is_dir()] == []


def test_a_registry_that_lies_to_pip_is_still_caught(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tampered(command: list[str], _: str) -> tuple[int, str]:
        (Path(command[command.index("--dest") + 1]) / "small.whl").write_text("tampered")
        return 0, ""

    monkeypatch.setattr(packages, "_run", tampered)
    with pytest.raises(Mistake, match=f"got sha256 {hashlib.sha256(b'tampered').hexdigest()}; expected"):
        fetch_package("small-thing", "1.0", sha256(shelf))
    assert [path for path in (cache_home() / "packages").iterdir() if path.is_dir()] == []


def test_offline_without_a_cache_says_what_to_run_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_OFFLINE", "1")
    with pytest.raises(Mistake, match="offline; type `tunesmith models pull small` once with a network"):
        fetch_package("small-thing", "1.0", sha256(shelf), command="tunesmith models pull small")
    assert not cache_home().exists()


@pytest.mark.parametrize("setting", ["TUNESMITH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_by_either_setting(shelf: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    assert not offline()
    monkeypatch.setenv(setting, "1")
    assert offline()
    monkeypatch.setenv(setting, "0")
    assert not offline()


def test_a_package_that_is_not_there_ends_in_one_line(shelf: Path) -> None:
    with pytest.raises(Mistake, match=r"no-such-thing==2\.0: pip could not download it") as caught:
        fetch_package("no-such-thing", "2.0", "0" * 64)
    assert "\n" not in str(caught.value)


def test_two_at_once_pull_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, run = [], packages._run

    def counted(command: list[str], description: str) -> tuple[int, str]:
        calls.append(command)
        return run(command, description)

    monkeypatch.setattr(packages, "_run", counted)
    expected = sha256(shelf)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: fetch_package("small-thing", "1.0", expected), range(2)))
    assert found[0] == found[1]
    assert len(calls) == 1


def test_an_interrupted_pull_leaves_nothing_and_the_next_one_works(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    begin = subprocess.Popen

    def noted(*arguments: Any, **keys: Any) -> subprocess.Popen[str]:
        started.append(begin(*arguments, **keys))
        return started[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    expected = sha256(shelf)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", noted)
        patch.setattr(re, "fullmatch", interrupted)  # at the first line that pip writes
        with pytest.raises(KeyboardInterrupt):
            fetch_package("small-thing", "1.0", expected)
    assert started[0].poll() is not None
    assert [path for path in (cache_home() / "packages").iterdir() if path.is_dir()] == []
    assert fetch_package("small-thing", "1.0", expected).exists()


def test_a_cache_that_cannot_be_written_names_the_setting(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf.parent / "home").write_text("a file, not a folder")
    with pytest.raises(Mistake, match="set TUNESMITH_HOME to a folder"):
        fetch_package("small-thing", "1.0", sha256(shelf))


def test_half_an_archive_on_a_full_disk_is_not_told_as_a_wrong_hash(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(command: list[str], _: str) -> tuple[int, str]:
        (Path(command[command.index("--dest") + 1]) / "small.whl").write_text("half")
        return 1, "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"

    monkeypatch.setattr(packages, "_run", full)
    with pytest.raises(Mistake, match="the disk is full; free some space, or set TUNESMITH_HOME"):
        fetch_package("small-thing", "1.0", sha256(shelf))
    assert [path for path in (cache_home() / "packages").iterdir() if path.is_dir()] == []


def test_a_python_without_pip_says_how_to_get_it(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_run", lambda *_: (1, f"{sys.executable}: No module named pip\n"))
    with pytest.raises(Mistake, match="-m ensurepip"):
        fetch_package("small-thing", "1.0", sha256(shelf))


def test_the_cache_is_where_the_setting_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    monkeypatch.delenv("TUNESMITH_HOME")
    assert cache_home() == Path.home() / ".cache" / "tunesmith"


def test_no_registry_is_named() -> None:
    source = Path(packages.__file__).read_text(encoding="utf-8")
    assert "http" not in source
    assert "pypi" not in source.lower()


def test_pip_s_progress_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[tuple[float, float | None]] = []
    advance = progress.Bar.advance

    def noted(bar: progress.Bar, n: float = 1, **facts: object) -> None:
        advance(bar, n, **facts)
        shown.append((bar.done, bar.total))

    monkeypatch.setattr(progress.Bar, "advance", noted)
    script = tmp_path / "pip.py"
    script.write_text("print('Collecting it\\nProgress 0 of 4000000\\nProgress 3000000 of 4000000\\nSaved it')")
    assert packages._run([sys.executable, str(script)], "pulling it") == (0, "Collecting it\nSaved it\n")
    assert shown == [(0.0, 4.0), (3.0, 4.0)]

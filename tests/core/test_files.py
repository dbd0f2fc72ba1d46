from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_folder, atomic_write, disk_mistakes, lock, made_once

HALF_A_FOLDER = """
import sys, time
from pathlib import Path
from tunesmith.core.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "step-1"
    with atomic_folder(target) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "weights").write_bytes(b"1234")
        assert not target.exists()
        assert folder.parent == target.parent  # same file system, or the rename would copy
    assert (target / "below" / "weights").read_bytes() == b"1234"
    assert names(target.parent) == ["step-1"]


def test_a_folder_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    for content in ("old", "new"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert names(target) == ["new"]
    assert names(tmp_path) == ["artifact"]


def test_a_block_that_raises_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with atomic_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(target) as folder:  # noqa: PT012 - both steps are the block
        (folder / "new").touch()
        (folder / "missing").read_text()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["artifact"]


def test_kill_9_in_the_middle_leaves_no_folder_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "step-1"
    writer = subprocess.Popen([sys.executable, "-c", HALF_A_FOLDER, str(target)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    with atomic_folder(tmp_path / "step-1") as folder:  # a living writer's hidden folder is left alone
        (folder / "mine").touch()
    assert len(names(tmp_path)) == 2
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert names(target) == ["mine"]
    with atomic_folder(target) as folder:
        (folder / "next").touch()
    assert names(tmp_path) == ["step-1"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_text() == "two"
    dead = tmp_path / ".result.json.0123456789ab.partial"
    dead.write_text("half")
    atomic_write(path, "three — ü")
    assert path.read_text(encoding="utf-8") == "three — ü"
    assert names(tmp_path) == ["result.json"]


def test_a_lock_lets_one_through_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def visit() -> None:
        with lock(tmp_path / "door"):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.005)
            inside.pop()

    visitors = [threading.Thread(target=visit) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    with (
        lock(tmp_path / "door"),
        pytest.raises(Mistake, match="in use by another process"),
        lock(tmp_path / "door", wait=False),
    ):
        pass


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from tunesmith.core.files import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "door")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Mistake), lock(tmp_path / "door", wait=False):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with lock(tmp_path / "door", wait=False):
        pass


def test_a_file_where_a_folder_should_be_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    place = tmp_path / "runs" / "x"
    with pytest.raises(Mistake, match="expected a writable folder; set it"), atomic_folder(place, remedy="set it"):
        pass
    with pytest.raises(Mistake, match="cannot be written"):
        atomic_write(tmp_path / "runs" / "x.json", "")


def test_a_full_disk_is_a_mistake_however_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"the disk is full; .* or set x"), disk_mistakes(tmp_path, "set x"):
        raise OSError(28, "No space left on device")
    with pytest.raises(Mistake, match="the disk is full"), disk_mistakes(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_an_error_about_another_place_is_not_told_as_ours(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_mistakes(tmp_path / "runs" / "x"):
        raise PermissionError(13, "Permission denied", "/somewhere/else/data.csv")
    with pytest.raises(FileNotFoundError), disk_mistakes(tmp_path):
        Path(tmp_path / "missing").read_text()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs root on Linux")
def test_a_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        with pytest.raises(Mistake, match="the disk is full"), atomic_folder(small / "x") as folder:
            (folder / "weights").write_bytes(bytes(1 << 20))
        with pytest.raises(Mistake, match="the disk is full"):
            atomic_write(small / "x.json", bytes(1 << 20))
        assert names(small) == []
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        with pytest.raises(Mistake, match="read-only file system"), atomic_folder(small / "x"):
            pass
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_is_made_once_even_when_two_ask_at_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.02)
        (folder / "content").touch()

    askers = [threading.Thread(target=made_once, args=(tmp_path / "it", make)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(made) == 1
    assert names(tmp_path / "it") == ["content"]

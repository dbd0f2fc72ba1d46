"""Files and folders that appear whole or not at all, whatever kills the process that writes them.

A folder is written under a hidden name next to its place and renamed when it is complete and on the disk. The writer
holds a kernel lock on the hidden name for as long as it lives, so whoever comes next can tell what a dead process left
behind and clear it away; there is no lock file to go stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.core.errors import Mistake

_PARTIAL = ".partial"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NO_ENTRY = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


@contextlib.contextmanager
def disk_mistakes(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn a full or read-only disk at `path` into a Mistake that ends with `remedy`, what to type.

    Libraries wrap the system's error in their own (safetensors, torch, pyarrow), so the text is looked at as well.
    An error about a file elsewhere passes through.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) and _concerns(error, path) else None
        if number in _NO_ROOM or "No space left on device" in str(error):
            advice = f" or {remedy}" if remedy else ""
            raise Mistake(f"{path}: the disk is full; expected room to write; free some space{advice}") from error
        if number in _NO_ENTRY or "Read-only file system" in str(error):
            reason = os.strerror(number).lower() if number else "read-only file system"
            advice = remedy or "choose another folder or change its permissions"
            raise Mistake(f"{path}: cannot be written ({reason}); expected a writable folder; {advice}") from error
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Whether the error is about `path`, something below its folder, or a folder above it."""
    if error.filename is None:
        return True
    place, folder = Path(os.fsdecode(error.filename)).absolute(), path.absolute().parent
    return place.is_relative_to(folder) or folder.is_relative_to(place)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True, remedy: str = "") -> Iterator[None]:
    """Hold `path` (made when missing) so that one process at a time passes; the kernel lets go when the holder dies.

    Waits for its turn; with ``wait=False`` raises Mistake at once when another process holds it.
    """
    with disk_mistakes(path, remedy):
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Mistake(
                f"{path.parent}: in use by another process; expected to have it alone; wait for the other to end"
                + (f", or {remedy}" if remedy else "")
            ) from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_folder(target: Path, *, remedy: str = "") -> Iterator[Path]:
    """Yield an empty folder next to `target`; when the block ends well it is flushed to disk and becomes `target`.

    A `target` that is there is replaced as a whole. When the block raises, nothing is left and `target` is as it was;
    when the process is killed, the hidden folder is cleared by the next `atomic_folder` at the same place. A full or
    read-only disk raises Mistake; `remedy` says what to type then.
    """
    with disk_mistakes(target, remedy):
        make_folder(target.parent)
        _sweep(target)
        partial, handle = _claim(target)
        try:
            yield partial
            _flush(partial)
            _rename_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(handle)


def made_once(target: Path, make: Callable[[Path], None], *, remedy: str = "") -> Path:
    """The folder `target`, filled by `make` the first time it is asked for and only read after.

    Two processes may ask at once: the second waits and finds what the first made. Raises what `make` raises, and
    nothing is left then; a folder that is there is taken from a read-only disk too.
    """
    if not target.is_dir():
        with lock(target.with_name(f".{target.name}.lock"), remedy=remedy):
            if not target.is_dir():
                with atomic_folder(target, remedy=remedy) as partial:
                    make(partial)
    return target


def atomic_write(path: Path, text: str | bytes, *, remedy: str = "") -> None:
    """Write a whole file (UTF-8 when text) or leave what was there; a reader never sees half of it."""
    with disk_mistakes(path, remedy):
        make_folder(path.parent)
        _sweep(path)
        partial = _partial_name(path)
        try:
            with partial.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(text.encode() if isinstance(text, str) else text)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing; NotADirectoryError where a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # the one case in which the system does not call a file in the way by its name
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _partial_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")


def _claim(target: Path) -> tuple[Path, int]:
    """Make a hidden folder and hold it. A sweeper may come between the two steps: then make another."""
    while True:
        partial = _partial_name(target)
        partial.mkdir()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(partial, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if partial.exists():
                return partial, handle
            os.close(handle)


def _sweep(target: Path) -> None:
    """Clear what dead writers of `target` left: what nobody holds."""
    for partial in target.parent.glob(f".{target.name}.*{_PARTIAL}"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError, PermissionError):
            handle = os.open(partial, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _rename_folder(partial: Path, target: Path) -> None:
    """Put `partial` at `target`; a folder that is there steps aside first, since rename cannot replace a full one."""
    if target.exists():
        old, handle = _claim(target)
        try:
            target.replace(old / "old")
            partial.replace(target)
        finally:
            shutil.rmtree(old, ignore_errors=True)
            os.close(handle)
    else:
        partial.replace(target)
    _sync(target.parent)


def _flush(folder: Path) -> None:
    """Force every file and folder below `folder` to the disk, so that the rename cannot overtake the bytes."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

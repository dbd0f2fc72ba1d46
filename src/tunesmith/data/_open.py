"""From a path to its text: compressed or not, in the encoding it claims, with a clear word when it is none of that."""

from __future__ import annotations

import codecs
import difflib
import gzip
import zlib
from pathlib import Path

from tunesmith.core.errors import Mistake, nearest

HEAD_CHARACTERS = 1 << 16
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """The bytes of a file, uncompressed when it is gzip, at most `limit` of them.

    Raises Mistake when it is missing (with the near names of its folder), a folder, not readable or cut short.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP
        with gzip.open(path) if compressed else path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise Mistake(missing(path)) from None
    except IsADirectoryError:
        raise Mistake(_is_folder(path)) from None
    except PermissionError:
        raise Mistake(f"{path}: not readable; check its permissions") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Mistake(f"{path}: broken gzip ({error}); expected a whole .gz file; fetch or compress it again") from None


def read_text(path: Path, encoding: str) -> str:
    """The whole text of a file, a byte order mark taken away; never empty.

    Raises Mistake on an empty file, and names the first byte that is not `encoding`, its line, and the encoding to try.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig" if _is_utf8(encoding) else encoding)
    except UnicodeDecodeError as error:
        raise Mistake(_wrong_encoding(path, data, encoding, error.start)) from None
    except LookupError:
        known = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1251", "shift_jis", "gb18030", "euc_kr")
        raise Mistake(f"encoding: there is no '{encoding}'; {nearest(encoding, known)}") from None
    if not text.strip():
        raise Mistake(f"{path}: the file is empty; expected rows of examples")
    if "\0" in text:
        raise Mistake(f"{path}: not text (byte 0 at line {_line(data, data.find(0))}); {_advice(data)}")
    return text


def head(path: Path) -> str:
    """The beginning of a file as well as it can be read, for telling formats apart; "" where nothing can be."""
    return read_bytes(path, HEAD_CHARACTERS).decode("utf-8-sig", errors="replace")


def missing(path: Path) -> str:
    """The complaint about a file that is not there: names near to it in its folder, or the folder that is missing."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such file, and no folder {folder} either; expected the path of a data file"
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    near = near or sorted(name for name in names if name.split(".")[0] == path.name.split(".")[0])[:3]
    hint = f"did you mean {' or '.join(str(folder / name) for name in near)}?" if near else _listing(folder, names)
    return f"{path}: no such file; {hint}"


def _listing(folder: Path, names: list[str]) -> str:
    some = ", ".join(sorted(names)[:5]) or "nothing"
    return f"{folder.absolute()} holds {some}{' …' if len(names) > 5 else ''}"


def _is_folder(path: Path) -> str:
    files = sorted(entry.name for entry in path.iterdir() if entry.is_file())[:3]
    example = path / (files[0] if files else "train.jsonl")
    return f"{path}: a folder; expected a file; type {example}, or {path / '*'}{example.suffix} for several"


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in {"utf-8", "utf8"}


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _wrong_encoding(path: Path, data: bytes, encoding: str, start: int) -> str:
    where = f"{path}:{_line(data, start)}: byte 0x{data[start]:02x} (number {start + 1}) is not {encoding}"
    return f"{where}; {_advice(data)}"


def _advice(data: bytes) -> str:
    if data.startswith(_UTF16):
        return "it looks like UTF-16: write `encoding: utf-16`"
    if b"\0" in data[:4096]:
        return "expected a text file; save the data as CSV or JSON Lines"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "write `encoding:` with the right one, e.g. latin-1, or save the file as UTF-8"
    return "try `encoding: cp1252` (usual on Windows), or save the file as UTF-8"

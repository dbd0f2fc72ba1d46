"""Texts on their way in and vectors on their way out: files of either, and how near the vectors lie to each other."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write, disk_mistakes, make_folder
from tunesmith.core.progress import say
from tunesmith.core.records import Labelled
from tunesmith.core.rooms import choice
from tunesmith.data import txt
from tunesmith.data._open import read_text
from tunesmith.data._read import read

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".npy", ".safetensors", ".jsonl")
"""What vectors can be written as."""
_REMEDY = "choose another --output"


def read_texts(path: str | Path, column: str | None = None) -> list[str]:
    """The texts of a file, in its order: a line each of plain text, else a column of any format of the data room.

    Which column was taken is told where none is given. Raises Mistake for a file that cannot be read, a column that is
    not there and an empty text.
    """
    place = str(path)
    if place.removesuffix(".gz").endswith(txt.SUFFIXES):
        if column is not None:
            raise Mistake(f"{place}: got --column {column}; plain text has no columns; leave it out")
        return texts_of_lines(read_text(Path(place), "utf-8"), place)
    columns = {"input": column} if column else {}
    known = choice("tasks", "classification").ALIASES
    reading = read(place, record=Labelled, fields={"input": "a text"}, aliases=known, columns=columns, inputs_only=True)
    for note in reading.notes:
        say(note)
    return [record.input for record in reading.records]


def texts_of_lines(text: str, place: str) -> list[str]:
    """A text a line; empty lines at the end do not count. Raises Mistake for one between others: it would be no row."""
    lines = [line.rstrip("\r") for line in text.rstrip().split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line.strip() and text.strip():
            raise Mistake(f"{place}:{number}: an empty line; expected a text a line; remove it")
    return lines if text.strip() else []


def check_output(path: Path) -> None:
    """Raise Mistake, before any work is done, for a file that vectors cannot be written to."""
    if path.suffix not in SUFFIXES:
        raise Mistake(f"--output {path}: got the suffix '{path.suffix}'; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise Mistake(f"--output {path}: is a folder; expected a file; type {path / 'vectors'}{path.suffix}")
    probe = path.with_name(f".{path.name}.probe")
    with disk_mistakes(path, _REMEDY):
        make_folder(path.parent)
        probe.touch()
        probe.unlink()


def write(path: Path, texts: Sequence[str], vectors: Tensor, about: dict[str, Any]) -> None:
    """Write vectors `[texts, hidden]` as the suffix says, whole or not at all.

    `.npy`: numpy's float32 matrix; `.safetensors`: the tensor ``vectors``, with `about` as metadata; `.jsonl`: a text
    and its vector a line. Raises Mistake for a full or read-only disk.
    """
    if path.suffix == ".npy":
        import numpy

        file = io.BytesIO()
        numpy.save(file, vectors.numpy(), allow_pickle=False)
        content = file.getvalue()
    elif path.suffix == ".safetensors":
        from safetensors.torch import save

        content = save({"vectors": vectors}, metadata={key: str(value) for key, value in about.items()})
    else:
        rows = zip(texts, vectors.tolist(), strict=True)
        lines = (json.dumps({"text": text, "vector": vector}, ensure_ascii=False) + "\n" for text, vector in rows)
        content = "".join(lines).encode()
    atomic_write(path, content, remedy=_REMEDY)


def cosines(vectors: Tensor) -> list[list[float]]:
    """The cosine of the angle between any two vectors, from -1 to 1, `[texts, texts]`."""
    from torch.nn.functional import normalize

    unit = normalize(vectors.double(), dim=1)
    found: list[list[float]] = (unit @ unit.T).clamp(-1.0, 1.0).tolist()
    return found

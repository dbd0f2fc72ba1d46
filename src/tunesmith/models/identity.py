"""Which weights these are: a hash of the content, so that an adapter is never put on another base by accident."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write
from tunesmith.core.packages import cache_home, sha256_of
from tunesmith.models.folder import weight_files


def identity(folder: Path) -> str:
    """SHA-256 (hex) over the hashes of the folder's files of weights, in order of name.

    Only content counts: the same weights under another path or name are the same model. Hashing a large model takes
    seconds, so the result is kept in the cache until a file's size or time changes.
    """
    files = weight_files(folder)
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    kept = _kept_at(folder)
    with contextlib.suppress(OSError, json.JSONDecodeError):  # nothing kept yet, or nothing that can be read
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["identity"])
    result = hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()
    with contextlib.suppress(Mistake):  # a cache that cannot be written costs time, nothing else
        atomic_write(kept, json.dumps({"stamp": stamp, "identity": result}))
    return result


def _kept_at(folder: Path) -> Path:
    return cache_home() / "identities" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}.json"

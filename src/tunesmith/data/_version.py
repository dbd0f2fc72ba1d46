"""The version of data: a name for exactly this content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tunesmith.core.records import Record, fingerprint


def data_version(records: Iterable[Record]) -> str:
    """SHA-256 (hex) of the rows' content. Their order and their files do not count; a repeated row does."""
    digest = hashlib.sha256()
    for mark in sorted(fingerprint(record) for record in records):
        digest.update(bytes.fromhex(mark))
    return digest.hexdigest()

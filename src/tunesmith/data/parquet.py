"""Parquet: a table of columns, as `datasets`, pandas and the hub write it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.data._features import class_names, named
from tunesmith.data._open import read_bytes
from tunesmith.data._row import Options, Row

SUFFIXES = (".parquet", ".pq")


def sniff(name: str, head: str) -> float:
    """Sure by its first four bytes; else by suffix."""
    return 1.0 if head.startswith("PAR1") else 0.9 if name.endswith(SUFFIXES) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every row, named by its number; class numbers whose names the file keeps are given by name."""
    import pyarrow
    import pyarrow.parquet

    data = read_bytes(Path(name))
    if not data:
        raise Mistake(f"{name}: the file is empty; expected rows of examples")
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = class_names(_features(file.schema_arrow.metadata))
        number = 0
        for batch in file.iter_batches():
            for fields in batch.to_pylist():
                number += 1
                yield Row(named(fields, names), f"{name}:row {number}")
    except pyarrow.ArrowException as error:
        raise Mistake(f"{name}: not readable as parquet ({str(error).splitlines()[0]}); write the file again") from None
    if not number:
        raise Mistake(f"{name}: no rows; expected rows of examples")


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    kept = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = kept.get("info", {}).get("features")
    return features if isinstance(features, dict) else {}

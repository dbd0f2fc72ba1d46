"""Class names that `datasets` keeps beside the numbers: in a dataset's features and in the parquet files it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of each column that holds class numbers, or lists of them (the dict form of `datasets.Features`)."""
    found = {}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else None
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[column] = list(inner["names"])
    return found


def named(fields: Mapping[str, Any], names: Mapping[str, list[str]]) -> Mapping[str, Any]:
    """The row with class numbers turned into names; -1, which `datasets` writes for "not told", into None."""
    if not names:
        return fields

    def name_of(column: str, value: Any) -> Any:
        if isinstance(value, list):
            return [name_of(column, part) for part in value]
        return names[column][value] if isinstance(value, int) and 0 <= value < len(names[column]) else None

    return {column: name_of(column, value) if column in names else value for column, value in fields.items()}

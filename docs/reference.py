"""The pages made from the code, so that they cannot say anything else: the task file, key by key.

The prose stands in `*.md.j2` beside this file; what is filled in comes from `core/config.py` and the `Config` of every
choice. `make docs` writes the pages, a test checks that the committed ones are up to date.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import jinja2
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunesmith.core import config, rooms
from tunesmith.core.aliases import ALIASES
from tunesmith.core.mixture import Mixing
from tunesmith.data._spec import Source

HERE = Path(__file__).resolve().parent

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_MANY = {str: "texts", int: "whole numbers", float: "numbers"}
_SILENT = (types.NoneType, Ellipsis)
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def pages() -> dict[str, str]:
    """Every page made from the code, by its file name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    tools: Mapping[str, Any] = {
        "config": config,
        "rooms": rooms,
        "Source": Source,
        "Mixing": Mixing,
        "keys": keys,
        "usual": usual,
    }
    return {
        template.name.removesuffix(".j2"): environment.get_template(template.name).render(**tools)
        for template in sorted(HERE.glob("*.md.j2"))
    }


def keys(section: type[BaseModel], under: str = "") -> str:
    """The keys of a section as a table, needed ones first; `under` is the key that the section itself stands under."""
    fields = sorted(section.model_fields.items(), key=lambda item: not item[1].is_required())
    if not fields:
        return "It has no keys of its own."
    rows = [[*_row(name, field), _peers((under, name) if under else (name,))] for name, field in fields]
    columns = ["key", "value", "default", "what it is", "peers call it"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return "\n".join(_line(cells) for cells in (columns, ["---"] * len(columns), *rows))


def usual(task: types.ModuleType) -> Iterator[tuple[str, str, str]]:
    """Each field that a column of the data can fill, what it is, and what such columns are usually called."""
    for name, meaning in task.FIELDS.items():
        optional = " (may be missing)" if name in task.OPTIONAL else ""
        yield name, meaning + optional, ", ".join(f"`{alias}`" for alias in task.ALIASES.get(name, ()))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _row(name: str, field: FieldInfo) -> list[str]:
    return [f"`{name}`", _value(name, field), _default(name, field), field.description or ""]


def _value(name: str, field: FieldInfo) -> str:
    if _room(field) or _is_section(field.annotation):
        return f"see [{name}](#{name})"
    limits = [(word, getattr(part, key, None)) for part in field.metadata for key, word in _BOUNDS.items()]
    return ", ".join([_kind(field.annotation), *(f"{word} {limit:g}" for word, limit in limits if limit is not None)])


def _kind(annotation: Any) -> str:
    """A type as a person says it."""
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part not in _SILENT]
    if origin in (list, tuple):
        return f"list of {_MANY[inner[0]]}"
    if origin is dict:
        return "mapping"
    if origin not in (Literal, Union, types.UnionType):
        return _KINDS[annotation]
    words = [f"`{part}`" if origin is Literal else _kind(part) for part in inner]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _default(name: str, field: FieldInfo) -> str:
    room = _room(field)
    if room and "default" in room:
        return f"`{room['default']}`"
    if field.is_required():
        return "**needed**"
    if _is_section(field.annotation):
        return ""
    return _yaml(field.get_default(call_default_factory=True))


def _yaml(value: Any) -> str:
    """A default as it is written in YAML; "" for None, which the description explains."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return '`""`' if value == "" else f"`{value}`"


def _room(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) and "room" in extra else {}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, config.Section)


def _peers(path: tuple[str, ...]) -> str:
    """Other tools' names for the key, as they may be written in our files."""
    ours = (path, (*path, "name"))
    return ", ".join(f"`{'.'.join(alias)}`" for alias, meant in ALIASES.items() if meant in ours)

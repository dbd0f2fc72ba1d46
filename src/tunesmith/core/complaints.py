"""What is wrong with a task file, in words: a line for each mistake, in the order of the file's lines."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tunesmith.core.errors import Mistakes, closest, nearest
from tunesmith.core.origin import Keys, Origin


class Complaints:
    """Everything that is wrong with a file, told at once.

    `aliases` (other tools' key: ours) and `elsewhere` (all keys there are) help to say what a wrong key was meant
    to be.
    """

    def __init__(self, origin: Origin, aliases: Mapping[Keys, Keys] | None = None) -> None:
        self.origin = origin
        self.aliases = aliases or {}
        self.elsewhere: Collection[Keys] = ()
        self._told: list[tuple[tuple[int, int], str]] = []

    def add(self, keys: Keys, complaint: str) -> None:
        """Complain about `keys`; their place is put before the complaint."""
        self._told.append((self.origin.rank(keys), f"{self.origin.of(keys)}: {complaint}"))

    def tell(self) -> None:
        """Raise Mistakes if there was anything to complain about."""
        if self._told:
            in_order = sorted(self._told, key=lambda told: told[0])
            raise Mistakes(dict.fromkeys(complaint for _, complaint in in_order))

    def explain(self, error: ValidationError, section: type[BaseModel], above: Keys, told: Iterable[str] = ()) -> None:
        """Complain once about each key that validation refused; `section` stands under `above`, `told` were before."""
        refused: dict[Keys, list[Any]] = {}
        for item in error.errors(include_url=False):
            location = tuple(map(str, item["loc"]))
            keys = find(section, location)[0]
            for part in location[len(keys) :]:
                keys = (*keys, part) if (*above, *keys, part) in self.origin.lines else keys
            refused.setdefault(keys, []).append(item)
        for keys, items in refused.items():
            if not {*told} & {*keys[:1]}:
                self.add((*above, *keys), f"{'.'.join((*above, *keys))}{self._about(items, keys, section, above)}")

    def _about(self, items: list[Any], keys: Keys, section: type[BaseModel], above: Keys) -> str:
        _, holder, field = find(section, keys)
        if items[0]["type"] == "extra_forbidden":
            known = items[0].get("ctx", {}).get("known", holder.model_fields)  # where a library's class says the keys
            return f": unknown key; {self._meant((*above, *keys), known)}"
        if items[0]["type"] == "missing":
            return f" is missing; expected {field.description if field else 'a value'}"
        return f": got {items[0]['input']!r:.60}; expected {_expected(items, field)}"

    def _meant(self, keys: Keys, known_here: Iterable[str]) -> str:
        """What an unknown key was meant to be: a key of another level, one of this level, or another tool's for one."""
        for known in self.elsewhere:
            if known[-1] == keys[-1] and known != keys:
                return f"did you mean '{'.'.join(known)}'?"
        here = {alias[-1]: ".".join(ours) for alias, ours in self.aliases.items() if alias[:-1] == keys[:-1]}
        here |= {name: name for name in known_here}
        close = closest(keys[-1], here)
        return f"did you mean '{here[close]}'?" if close else nearest(keys[-1], known_here)


def find(section: type[BaseModel], location: Keys) -> tuple[Keys, type[BaseModel], FieldInfo | None]:
    """The keys of a location that stand in the file, without pydantic's own words for the branches of a union.

    With the section that holds the last of them, and its field, None when there is none of that name.
    """
    keys: Keys = ()
    field = None
    for part in location:
        keys, field = (*keys, part), section.model_fields.get(part)
        below = field and section_of(field)
        if not below or part == location[-1]:
            break
        section = below
    return keys, section, field


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, None when it holds a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def kinds(field: FieldInfo | None) -> set[Any]:
    """What a field can hold: ``{int, NoneType}``, ``{list, str}``, ``{Literal}``; nothing is known of no field."""
    annotation = field.annotation if field else Any
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return {get_origin(part) or part for part in parts}


def _expected(items: list[Any], field: FieldInfo | None) -> str:
    """What a value should have been: the field's description where it can be much, else each thing it can be."""
    below = field and section_of(field)
    if items[0]["type"].startswith("model") and below:
        return f"keys below it: {', '.join(below.model_fields)}"
    can_be = kinds(field) - {type(None)}
    if field and len(can_be) > 1 and Literal not in can_be:
        return (field.description or "").split(";")[0]
    return " or ".join(dict.fromkeys(_plain(item["msg"]) for item in items))


def _plain(message: str) -> str:
    message = message.removeprefix("Input should be ").removeprefix("Value error, ").split(", unable")[0]
    return f"a number {message}" if message.startswith(("greater", "less")) else message

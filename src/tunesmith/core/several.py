"""A task file with a list of tasks, taken apart into as many files of one task that share all other keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import Mistake, Mistakes, nearest
from tunesmith.core.origin import Keys, Origin

MIXING = ("mixture", "temperature", "size_limit", "adapters")
"""Keys that say how the tasks go together, and mean nothing to one of them alone."""
_OF_ONE = ("name", "task", "data")
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")

Parts = dict[str, tuple[dict[str, Any], Origin]]


def is_several(tree: Mapping[str, Any]) -> bool:
    """Whether a task file has a list of tasks."""
    return "tasks" in tree


def parts(tree: Mapping[str, Any], origin: Origin) -> Parts:
    """Each task's name, its keys as a task file of its own would have them, and where these were written.

    Raises Mistakes on tasks that are not a list of {name, task, data}, and on names that are none or come twice.
    """
    given, complaints = tree["tasks"], list[str]()
    if not isinstance(given, list) or not given or not all(isinstance(one, Mapping) for one in given):
        raise Mistake(f"{origin.of(('tasks',))}: tasks: got {given!r:.40}; expected a list of name, task and data")
    complaints += [
        f"{origin.of((key,))}: {key}: stands beside `tasks:`; expected it with each of them; move it there"
        for key in ("task", "data")
        if key in tree
    ]
    shared = {key: value for key, value in tree.items() if key not in ("tasks", *MIXING)}
    made: Parts = {}
    for place, one in enumerate(given):
        here, name = origin.of(("tasks", str(place))), one.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            complaints.append(f"{here}: name: got {name!r}; expected letters, digits, - and _, for folders and --task")
        elif name in made:
            complaints.append(f"{here}: name: {name} is the name of another task, too; choose another")
        unknown = [str(key) for key in one if key not in _OF_ONE]
        complaints += [f"{here}: {key}: unknown key of a task; {nearest(key, _OF_ONE)}" for key in unknown]
        own = {key: one[key] for key in ("task", "data") if key in one}
        made[str(name)] = {**shared, **own}, _origin_of(origin, str(place))
    if complaints:
        raise Mistakes(complaints)
    return made


def only(tree: Mapping[str, Any], origin: Origin, name: Any) -> tuple[dict[str, Any], Origin]:
    """The task file of the task called `name` alone. Raises Mistake where there is none, or none was named."""
    made = parts(tree, origin)
    if name is None:
        raise Mistake(f"{origin.file}: has the tasks {', '.join(made)}; expected one; type --task {next(iter(made))}")
    if name not in made:
        raise Mistake(f"--task: there is no task '{name}' in {origin.file}; {nearest(str(name), made)}")
    return made[name]


def _origin_of(origin: Origin, place: str) -> Origin:
    """Where the keys of one task's own file were written."""
    own = Origin(origin.file)
    own.lines = {_alone(keys, place): line for keys, line in origin.lines.items() if _is_of(keys, place)}
    for key in ("task", "data"):
        own.lines.setdefault((key,), origin.lines.get(("tasks", place), 0))
    own.repeated = [_alone(keys, place) for keys in origin.repeated if _is_of(keys, place)]
    return own


def _is_of(keys: Keys, place: str) -> bool:
    return keys[0] != "tasks" or (keys[1:2] == (place,) and len(keys) > 2)


def _alone(keys: Keys, place: str) -> Keys:
    return keys[2:] if keys[0] == "tasks" else keys

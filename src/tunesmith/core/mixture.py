"""Several tasks of one task file, resolved: each a project of its own, and how they are trained together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from tunesmith.core.complaints import Complaints
from tunesmith.core.config import Project, Section, load_project, located, resolve
from tunesmith.core.errors import Mistakes
from tunesmith.core.origin import Origin, from_shell, read_task
from tunesmith.core.several import MIXING, is_several, parts


class Mixing(Section):
    """The keys beside `tasks:`, in a task file of several tasks."""

    mixture: Literal["proportional", "equal", "temperature"] = Field(
        "proportional", description="how often each task comes: as it has rows, all alike, or in between"
    )
    temperature: float = Field(2.0, ge=1, description="for mixture temperature: 1 is proportional, large is equal")
    size_limit: int | None = Field(None, ge=1, description="rows that a task counts as at most when shares are made")
    adapters: Literal["one", "each"] = Field("one", description="one adapter for all tasks, or one for each")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Tasks by their names, which differ in `task` and `data` only, and how they go together."""

    mixing: Mixing
    tasks: Mapping[str, Project]

    @property
    def shared(self) -> Project:
        """A project with the keys that all tasks have in common; its own task and data are those of the first."""
        return next(iter(self.tasks.values()))

    def with_tasks(self, tasks: Mapping[str, Project]) -> Mixture:
        """The same with other projects, for labels that were found in the data."""
        return replace(self, tasks=tasks)

    def as_dict(self) -> dict[str, Any]:
        """The file as plain values, every default filled in: running it again repeats the run."""
        each = {name: project.as_dict() for name, project in self.tasks.items()}
        tasks = [{"name": name, "task": told["task"], "data": told["data"]} for name, told in each.items()]
        shared = {key: value for key, value in self.shared.as_dict().items() if key not in ("model", "task", "data")}
        return {"model": self.shared.model, "tasks": tasks, **self.mixing.model_dump(mode="json"), **shared}

    def to_yaml(self) -> str:
        """`as_dict` as YAML."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)


def load(file: Path | str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Project | Mixture:
    """A task file, or its keys, of one task or of several, with `overrides` laid over it; ``task: NAME`` picks one.

    Overrides of `task` and `data` below their names (``data.max_rows``) go to every task. Raises Mistakes.
    """
    tree, origin, folder = read_task(file)
    overrides = dict(overrides or {})
    if not is_several(tree) or "task" in overrides:
        return load_project(file, overrides)
    typed = {key: overrides.pop(key) for key in MIXING if key in overrides}
    mixing, tasks, complaints = Mixing(), dict[str, Project](), dict[str, None]()
    for name, (own, where) in parts(tree, origin).items():
        try:
            tasks[name] = located(resolve(own, where, overrides), folder)
        except Mistakes as mistakes:
            complaints |= dict.fromkeys(mistakes.lines)
    try:
        mixing = _mixing(tree, origin, typed)
    except Mistakes as mistakes:
        complaints |= dict.fromkeys(mistakes.lines)
    if complaints:
        raise Mistakes(complaints)
    return Mixture(mixing, tasks)


def _mixing(tree: Mapping[str, Any], origin: Origin, typed: Mapping[str, Any]) -> Mixing:
    given = {key: tree[key] for key in MIXING if key in tree}
    given |= {key: from_shell(value, set()) for key, value in typed.items()}
    origin.typed |= {(key,): f"--{key}" for key in typed}
    try:
        return Mixing.model_validate(given)
    except ValidationError as error:
        complaints = Complaints(origin)
        complaints.explain(error, Mixing, ())
        complaints.tell()
        raise

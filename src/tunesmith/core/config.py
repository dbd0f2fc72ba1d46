"""The task file: read strictly, its mistakes told all at once, written back with every default filled in.

A choice (`task`, `method`, `objective`) is validated by the `Config` of the file it names in its room, so a room's
file is the only place that knows its keys. Names that peers use for the same thing are understood; the resolved file
says ours.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from tunesmith.core.aliases import ALIASES, meaning
from tunesmith.core.complaints import Complaints, kinds, section_of
from tunesmith.core.errors import Mistake
from tunesmith.core.origin import Keys, Origin, beside, from_shell, read_task
from tunesmith.core.rooms import choice, names
from tunesmith.core.sections import Budget as Budget
from tunesmith.core.sections import Data as Data
from tunesmith.core.sections import Forgetting as Forgetting
from tunesmith.core.sections import LrSchedulerKwargs as LrSchedulerKwargs
from tunesmith.core.sections import OptimizerName as OptimizerName
from tunesmith.core.sections import Pooling as Pooling
from tunesmith.core.sections import Precision as Precision
from tunesmith.core.sections import Quantization as Quantization
from tunesmith.core.sections import ScheduleName as ScheduleName
from tunesmith.core.sections import Section as Section
from tunesmith.core.several import is_several, only


class Chosen:
    """A choice of a room with its validated config: `chosen.name`, `chosen.config`, `chosen.module`."""

    __slots__ = ("config", "name", "room")

    def __init__(self, room: str, name: str, config: Any) -> None:
        self.room, self.name, self.config = room, name, config

    @property
    def module(self) -> types.ModuleType:
        """The file of the room that holds this choice."""
        return choice(self.room, self.name)

    def as_dict(self) -> dict[str, Any]:
        """The choice as it is written in YAML."""
        return {"name": self.name, **self.config.model_dump(mode="json")}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and (self.room, self.as_dict()) == (other.room, other.as_dict())

    def __hash__(self) -> int:
        return hash((self.room, self.name))

    def __repr__(self) -> str:
        return f"Chosen({self.room}/{self.name}, {self.config!r})"


def choose(room: str, /, name: str, **keys: Any) -> Chosen:
    """A choice made in code: ``choose("methods", "lora", r=8)``. Raises Mistakes on an unknown name or key."""
    choice(room, name)
    complaints = Complaints(Origin(room))
    chosen = _choose(room, {"name": name, **keys}, (name,), complaints)
    complaints.tell()
    assert chosen is not None
    return chosen


class Project(Section):
    """A whole task file, resolved. Keys carry the field's standard names; see `tunesmith init` for a commented one."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str = Field(description="a catalogue name, hub id, folder or .gguf file")
    task: Chosen = Field(description="the work to be done", json_schema_extra={"room": "tasks"})
    data: Data = Field(description="the examples")
    method: Chosen = Field(
        description="what is trained, for `train`", json_schema_extra={"room": "methods", "default": "lora"}
    )
    objective: Chosen = Field(
        description="what it is trained for", json_schema_extra={"room": "objectives", "default": "sft"}
    )
    sweep: dict[str, list[float | int | str | bool | None]] = Field(
        default_factory=dict, description="what `sweep` searches, by key: two numbers (a range), or choices"
    )
    rungs: list[str] | None = Field(None, description="the rungs a climb tries; default: all but full")
    optimizer: OptimizerName = Field("adamw", description="the optimizer")
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate; default: the method's own")
    lr_scheduler_type: ScheduleName | None = Field(
        None, description="shape after warm-up; default: the method's own, or cosine"
    )
    lr_scheduler_kwargs: LrSchedulerKwargs = Field(
        default_factory=LrSchedulerKwargs, description="what some shapes ask for"
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the steps spent warming up")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (L2 for adam and sgd)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum, for sgd")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this Euclidean norm")
    num_train_epochs: float = Field(1.0, gt=0, description="passes over the training rows")
    max_steps: int | None = Field(None, ge=1, description="stop after so many optimizer steps")
    per_device_train_batch_size: int = Field(8, ge=1, description="rows in a micro-batch")
    gradient_accumulation_steps: int = Field(1, ge=1, description="micro-batches in an optimizer step")
    max_length: int = Field(1024, ge=8, description="tokens in a row, prompt and answer together")
    too_long: Literal["drop", "truncate", "error"] = Field("truncate", description="what happens to longer rows")
    eval_steps: int | None = Field(None, ge=1, description="validate every so many steps; default: six times a run")
    early_stopping_patience: int | None = Field(None, ge=1, description="stop after so many validations without gain")
    save_steps: int | None = Field(None, ge=1, description="checkpoint every so many steps; default: every 2 minutes")
    precision: Precision = Field(
        "auto",
        description="of frozen weights and products; int8: rounded weights too, where few rows are decoded",
    )
    quantization: Quantization | None = Field(
        None, description="store the base's frozen linear layers in 4 or 8 bits (QLoRA); default: no"
    )
    shots: int = Field(0, ge=0, description="examples put into the prompt, for `evaluate`")
    seed: int = Field(0, ge=0, description="every random choice follows from it")
    target: float | None = Field(None, description="a climb stops when the metric's interval lies above it")
    forgetting: Forgetting = Field(
        default_factory=lambda: Forgetting(), description="what holds a training to the base"
    )
    budget: Budget = Field(default_factory=lambda: Budget(), description="what may be spent")
    output_dir: str = Field("runs/run", description="where the run is kept, from the current folder")

    def as_dict(self) -> dict[str, Any]:
        """The project as plain values in our names, every default filled in: running it again repeats the run."""
        plain = {name: getattr(self, name) for name in type(self).model_fields}
        return {key: _plain(value) for key, value in plain.items()}

    def to_yaml(self) -> str:
        """`as_dict` as YAML, in the order of the fields."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)


_SOURCES = ("train", "validation", "test")
_ROOMS: dict[str, str] = {
    name: str(field.json_schema_extra["room"])
    for name, field in Project.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and "room" in field.json_schema_extra
}


def load_project(file: Path | str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Project:
    """Read a task file, or its keys, and lay `overrides` over it: dotted keys, as typed after ``--``.

    Of a file with several tasks ``task: NAME`` picks one, which then is a project as any other.

    Raises Mistake when the file is not there or not YAML, and Mistakes with every wrong key and value of the file,
    each with its line, when there are any.
    """
    tree, origin, folder = read_task(file)
    overrides = dict(overrides or {})
    if is_several(tree):
        tree, origin = only(tree, origin, overrides.pop("task", None))
    return located(resolve(tree, origin, overrides), folder)


def resolve(
    tree: Mapping[str, Any], origin: Origin | None = None, overrides: Mapping[str, Any] | None = None
) -> Project:
    """A project from plain values: what `load_project` does after reading. Raises Mistakes."""
    origin = origin or Origin("task")
    complaints = Complaints(origin, ALIASES)
    for keys in origin.repeated:
        complaints.add(keys, f"{'.'.join(keys)} is given twice; keep one")
    values = _rename(tree, complaints)
    _override(values, overrides or {}, complaints)
    complaints.elsewhere = _known(values)
    for name, room in _ROOMS.items():
        values[name] = _choose(room, _named(name, values.get(name)), (name,), complaints)
    try:
        project = Project.model_validate(values)
    except ValidationError as error:
        complaints.explain(error, Project, (), told=_ROOMS)
    complaints.tell()
    return project


def _rename(tree: Mapping[str, Any], complaints: Complaints) -> dict[str, Any]:
    """Peers' names become ours; one thing said under two names is a mistake unless both say the same."""
    renamed = {str(key): dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    lines = complaints.origin.lines
    for alias, ours in ALIASES.items():
        holder = _get(renamed, alias[:-1])
        if not isinstance(holder, dict) or alias[-1] not in holder:
            continue
        if (value := meaning(alias, holder.pop(alias[-1]))) is None:
            continue
        if (known := _get(renamed, ours)) not in (None, value):
            said = f"{'.'.join(alias)} means {'.'.join(ours)}, which is {known!r} here"
            complaints.add(alias, f"{said}; keep one")
        else:
            _put(renamed, ours, value)
            lines |= {ours: lines[alias]} if alias in lines and ours not in lines else {}
    return renamed


def _override(tree: dict[str, Any], overrides: Mapping[str, Any], complaints: Complaints) -> None:
    """Lay what was typed over the file. A choice typed by another name begins anew: the old one's keys are not its."""
    typed: dict[Keys, Any] = {}
    for dotted, value in overrides.items():
        keys = tuple(part.replace("-", "_") for part in dotted.split("."))
        value, keys = meaning(keys, value), ALIASES.get(keys, keys)
        keys = (*keys, "name") if len(keys) == 1 and keys[0] in _ROOMS and isinstance(value, str) else keys
        typed[keys] = typed.get(keys) if value is None else value  # a peer's flag that is off
        complaints.origin.typed[keys] = f"--{dotted}"
    for keys in sorted(typed, key=lambda keys: keys[1:] != ("name",)):
        value = from_shell(typed[keys], kinds(_field(tree, keys)))
        if keys[0] in _ROOMS and keys[1:] == ("name",) and not _is_named(tree.get(keys[0]), keys[0], value):
            tree[keys[0]] = {"name": value}
        if not _put(tree, keys, value):
            complaints.add(keys, f"{'.'.join(keys)}: unknown key; {'.'.join(keys[:-1])} has no keys below it")


def _named(key: str, value: Any) -> Any:
    """What was written for a choice, as a mapping with a name; without a name it means the default one."""
    extra = Project.model_fields[key].json_schema_extra
    default = {"name": extra["default"]} if isinstance(extra, dict) and "default" in extra else {}
    if value is None or isinstance(value, str):
        return {"name": value} if value else default
    if not isinstance(value, Mapping):
        return value
    return {**default, **{inner: part for inner, part in value.items() if part is not None or inner != "name"}}


def _is_named(value: Any, key: str, name: Any) -> bool:
    given = _named(key, value)
    return isinstance(given, Mapping) and str(given.get("name")).replace("-", "_") == str(name).replace("-", "_")


def _choose(room: str, given: Any, keys: Keys, complaints: Complaints) -> Chosen | None:
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        got = f": got {name or given!r:.60}" if given else " is missing"
        complaints.add(keys, f"{keys[-1]}{got}; expected one of {', '.join(names(room))}")
        return None
    try:
        module = choice(room, name)
    except Mistake as mistake:
        complaints.add((*keys, "name"), str(mistake))
        return None
    try:
        config = module.Config.model_validate({key: value for key, value in given.items() if key != "name"})
    except ValidationError as error:
        complaints.explain(error, module.Config, keys)
        return None
    return Chosen(room, name.replace("-", "_"), config)


def _section(tree: Mapping[str, Any], key: str) -> type[BaseModel] | None:
    """The section under a key of a task file: that of a choice is its file's."""
    if key not in _ROOMS:
        field = Project.model_fields.get(key)
        return section_of(field) if field else None
    given = _named(key, tree.get(key))
    name = str(given.get("name", "")).replace("-", "_") if isinstance(given, Mapping) else ""
    return choice(_ROOMS[key], name).Config if name in names(_ROOMS[key]) else None


def _field(tree: Mapping[str, Any], keys: Keys) -> FieldInfo | None:
    section = Project if len(keys) == 1 else _section(tree, keys[0])
    return section.model_fields.get(keys[-1]) if section and len(keys) < 3 else None


def _known(tree: Mapping[str, Any]) -> list[Keys]:
    """Every key that this task file could have, for telling where a misplaced one belongs."""
    below = {key: _section(tree, key) for key in Project.model_fields}
    inner = [(key, name) for key, section in below.items() if section for name in section.model_fields]
    return [*((key,) for key in Project.model_fields), *inner]


def _get(tree: Any, keys: Keys) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], keys: Keys, value: Any) -> bool:
    """Set a value, opening the levels above it; False, and nothing set, where one of them has no keys below it."""
    for key in keys[:-1]:
        below = tree.get(key)
        if key in _ROOMS:
            below = _named(key, below)
        elif key in _SOURCES and isinstance(below, str | list):
            below = {"path": below}
        elif below is None and (key in _SOURCES or key not in Project.model_fields or _section(tree, key)):
            below = {}
        if not isinstance(below, dict):
            return False
        tree[key] = below
        tree = below
    tree[keys[-1]] = value
    return True


def located(project: Project, folder: Path) -> Project:
    """The project with its files and folders as they lie beside the task file; others stay as they are written."""
    data = {name: beside(getattr(project.data, name), folder) for name in _SOURCES}
    is_place = "/" in project.model or project.model.endswith(".gguf")  # a bare name is one of the catalogue
    model = beside(project.model, folder) if is_place else project.model
    replay = {"replay_data": beside(project.forgetting.replay_data, folder)}
    return project.model_copy(
        update={
            "data": project.data.model_copy(update=data),
            "model": model,
            "forgetting": project.forgetting.model_copy(update=replay),
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Chosen):
        return value.as_dict()
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

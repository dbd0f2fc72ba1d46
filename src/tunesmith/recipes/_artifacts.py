"""What a rung leaves to be used: a method's weights, or only a way of asking, and in both cases how to ask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Precision, Project, choose
from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.files import atomic_folder, atomic_write
from tunesmith.core.progress import say
from tunesmith.core.records import Chat, Labelled, Message, as_dict
from tunesmith.core.rooms import choice
from tunesmith.evaluation.answers import Answerer, Prompting
from tunesmith.evaluation.reader_answers import ReaderAnswerer
from tunesmith.recipes._work import Model, labelled, open_model

_PROMPTING = "prompting.json"
_WEIGHTS = ("tunesmith.json", "adapter_config.json")


def save(
    folder: Path,
    model: Model,
    task: Chosen | Mapping[str, Chosen],
    prompting: Prompting,
    method: Chosen | None = None,
) -> int:
    """Write an artifact whole or not at all; returns its bytes. `method` is what is attached, None: only a prompt.

    `task` may be several, by their names, for one of which it is opened each time.
    """
    from tunesmith.methods import _artifact

    several = {} if isinstance(task, Chosen) else {name: one.as_dict() for name, one in task.items()}
    one = task if isinstance(task, Chosen) else next(iter(task.values()))
    origin = replace(model.origin(one), task={}) if several else model.origin(one)
    told = {
        **({"tasks": several} if several else {}),
        "origin": asdict(origin),
        "shots": [as_dict(shot) for shot in prompting.shots],
        "similar": prompting.similar,
        "offsets": list(prompting.offsets),
    }

    def beside(new: Path) -> None:
        (new / _PROMPTING).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        if method is not None and method.module.WHOLE:
            model.loaded.tokenizer.save_pretrained(new)

    if method is None:
        with atomic_folder(folder) as new:
            beside(new)
    else:
        _artifact.save(folder, model.loaded.model, method.name, method.config, origin, beside)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def find(place: str | Path, task: str | None = None) -> Path:
    """The artifact's folder: `place` itself, or `artifact` inside a run's folder.

    Where a run made an adapter for each of several tasks, `task` says for which. Raises Mistake when there is none.
    """
    place = Path(place)
    if each := sorted(folder.name for folder in (place / "tasks").glob("*")):
        place = place / "tasks" / _one_of(each, task, place)
    for folder in (place, place / "artifact"):
        if any((folder / name).is_file() for name in (_PROMPTING, "tunesmith.json", "adapter_config.json")):
            return folder
    there = "nothing" if not place.exists() else "no artifact"
    raise Mistake(f"{place}: {there} there; expected a run's folder or an adapter; type `tunesmith runs list`")


AnyAnswerer = Answerer | ReaderAnswerer


def open_artifact(
    folder: Path, project: Project | None = None, precision: Precision = "auto", task: str | None = None
) -> tuple[Model, AnyAnswerer, Prompting]:
    """Load the base an artifact was made for, lay the artifact on it, and give what answers with it.

    `project` says the model where the artifact does not (an adapter of somebody else's), and how it is stored. Raises
    Mistake when the base or its chat template is another than the one it was made with.
    """
    origin = _origin(folder, _told(folder))
    base = project.model if project is not None else origin["base"]
    if not base:
        raise Mistake(f"{folder}: does not say which model it belongs to; give a task file with `model:`")
    quantization = project.quantization if project is not None else origin.get("quantization") or None
    asked, reads = _task(folder, origin, project, task), origin.get("reads", "")
    model = open_model(base, precision, asked, quantization=quantization, reads=reads)
    return model, *lay_on(model, folder, project, task)


def lay_on(
    model: Model, folder: Path, project: Project | None = None, task: str | None = None
) -> tuple[AnyAnswerer, Prompting]:
    """Lay an artifact on a model that is loaded. The task is the artifact's own, or else the project's.

    Of an artifact with several tasks `task` is the name of the one that is meant.
    """
    from tunesmith.methods import _artifact

    told = _told(folder)
    origin = _origin(folder, told)
    chosen = _task(folder, origin, project, task)
    prefix: tuple[int, ...] = ()
    trained = any((folder / name).is_file() for name in _WEIGHTS)
    if trained:
        artifact = _artifact.describe(folder)
        model = model.reading(Chosen("methods", artifact.method, artifact.config), chosen)
    _check_base(folder, origin, model)
    if trained:
        method, config = _artifact.load(folder, model.loaded.model, model.loaded.identity)
        prefix = prefix_of(Chosen("methods", method, config), model)
    shots = tuple(_shot(chosen, shot) for shot in told.get("shots", ()))
    prompting = Prompting(shots, told.get("similar", 0), tuple(told.get("offsets", ())), prefix)
    objective = None if project is None else project.objective
    return model.answerer(chosen, objective), prompting


@contextmanager
def laid_on(model: Model, folder: Path, project: Project) -> Iterator[tuple[AnyAnswerer, Prompting]]:
    """`lay_on` for a while; afterwards the base is as it was."""
    from tunesmith.methods._attachment import attached

    try:
        yield lay_on(model, folder, project)
    finally:
        if (there := attached(model.loaded.model)) is not None:
            choice("methods", there.method).detach(model.loaded.model)


def _task(folder: Path, origin: Mapping[str, Any], project: Project | None, name: str | None) -> Chosen:
    """What an artifact is asked for: its own task, one of its own, what the project says, or text written freely."""
    if origin["task"]:
        return choose("tasks", **origin["task"])
    if several := _told(folder).get("tasks") if project is None else None:
        return choose("tasks", **several[_one_of(several, name, folder)])
    return labelled(project).task if project is not None else choose("tasks", "generation")


def _one_of(names: Collection[str], name: str | None, place: Path) -> str:
    """The name, which must be one of them. Raises Mistake."""
    if name in names:
        return str(name)
    got = f"got --task {name}" if name else "holds several tasks"
    hint = nearest(name, names) if name else f"type --task {next(iter(names))}"
    raise Mistake(f"{place}: {got}; expected one of {', '.join(names)}; {hint}")


def _told(folder: Path) -> dict[str, Any]:
    path = folder / _PROMPTING
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _origin(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    from tunesmith.methods import _artifact

    return told["origin"] if "origin" in told else asdict(_artifact.describe(folder).origin)


def tasks_of(folder: Path) -> dict[str, Chosen]:
    """The tasks of an artifact that serves several, by name; none of one that serves one."""
    return {name: choose("tasks", **task) for name, task in _told(folder).get("tasks", {}).items()}


def prefix_of(method: Chosen, model: Model) -> tuple[int, ...]:
    """The virtual tokens that the attached method puts before every sequence; most have none."""
    tokens: Callable[[Any], tuple[int, ...]] | None = getattr(method.module, "prefix_tokens", None)
    return tokens(model.loaded.model) if tokens else ()


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all; what is no number becomes null, since JSON has no NaN."""
    atomic_write(path, json.dumps(_finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_base(folder: Path, origin: dict[str, Any], model: Model) -> None:
    for what, ours in (("identity", model.loaded.identity), ("template", model.form.hash)):
        if origin[what] and origin[what] != ours:
            template = "another chat template" if model.reader is None else "another tokenizer or labels"
            named = "other weights" if what == "identity" else template
            raise Mistake(
                f"{folder}: made with {named} than {model.loaded.name} has now; expected {origin['base']} as it was"
            )
    made, here = origin.get("quantization", ""), model.prepared.quantization or ""
    if made != here:
        say(f"{folder}: made on a base {_stored(made)}, laid here on one {_stored(here)}: answers may differ a little")


def _stored(quantization: str) -> str:
    return f"stored in {quantization}" if quantization else "that is not quantized"


def _shot(task: Chosen, shot: dict[str, Any]) -> Any:
    """A worked example out of JSON, of the task's kind of record."""
    if task.module.RECORD is Chat:
        return Chat(tuple(Message(**turn) for turn in shot["messages"]))
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in shot.items()}
    return Labelled(**fields)

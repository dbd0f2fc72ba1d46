"""What every recipe starts from: the task file's data read and split, its model loaded and made ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Chosen, Precision, Project, Quantization, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.core.seed import derive
from tunesmith.data._read import Reading, read
from tunesmith.data._row import Problem
from tunesmith.data._spec import Source, source_of
from tunesmith.data._split import position, split
from tunesmith.data._version import data_version

if TYPE_CHECKING:
    from tunesmith.engine.prepare import Prepared
    from tunesmith.evaluation.answers import Answerer
    from tunesmith.evaluation.reader_answers import ReaderAnswerer
    from tunesmith.methods._artifact import Origin
    from tunesmith.models.load import Loaded
    from tunesmith.prompts.reading import Reader
    from tunesmith.prompts.render import Template


@dataclass(frozen=True, slots=True)
class Examples:
    """The records of each split, how they were found, and the version of all of them together.

    `problems` are the bad rows, where they were to be collected.
    """

    train: tuple[Any, ...]
    validation: tuple[Any, ...]
    test: tuple[Any, ...]
    notes: tuple[str, ...]
    version: str
    problems: tuple[Problem, ...] = ()

    def counts(self) -> dict[str, int]:
        """Rows in each split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


@dataclass(frozen=True, slots=True)
class Model:
    """A model made ready, with what makes rows for it, and where it comes from.

    `form` is a chat template where the model writes its answers, and a `Reader` where a head reads them off.
    """

    loaded: Loaded
    prepared: Prepared
    form: Template | Reader

    @property
    def template(self) -> Template:
        """The chat template. Raises Mistake for a model that only reads."""
        from tunesmith.prompts.render import Template

        if not isinstance(self.form, Template):
            raise Mistake(f"model {self.loaded.name}: reads text and writes none; expected a decoder for this")
        return self.form

    @property
    def reader(self) -> Reader | None:
        """What makes rows for a head; None where the model writes its answers."""
        from tunesmith.prompts.reading import Reader

        return self.form if isinstance(self.form, Reader) else None

    def reading(self, method: Chosen, task: Chosen) -> Model:
        """The model as `method` uses it: one with a head of its own reads rows, whatever the model; else as it is.

        Raises Mistake for such a method and a task that is not about labels of whole rows.
        """
        from tunesmith.recipes._reading import whole_rows

        if not getattr(method.module, "HEAD", False):
            return self
        return replace(self, form=whole_rows(self.loaded, method, task))

    def answerer(self, task: Chosen, objective: Chosen | None = None) -> Answerer | ReaderAnswerer:
        """What answers rows of a task with the model as it is at the moment; of documents, what `objective` hides."""
        from tunesmith.evaluation.answers import Answerer
        from tunesmith.evaluation.reader_answers import ReaderAnswerer

        if self.reader is not None:
            return ReaderAnswerer(self.prepared, self.reader, task, objective)
        return Answerer(self.prepared, self.template, task, objective)

    def origin(self, task: Chosen) -> Origin:
        """What an artifact of this model says of where it belongs."""
        from tunesmith.methods._artifact import Origin

        quantization, reads = self.prepared.quantization or "", self.reader.kind if self.reader else ""
        return Origin(self.loaded.name, self.loaded.identity, self.form.hash, task.as_dict(), quantization, reads)


def read_source(task: Chosen, source: Source) -> Reading[Any]:
    """Read a source as a task needs it. Raises Mistakes as the data room's `read`."""
    module = task.module
    return read(
        source,
        record=module.RECORD,
        fields=module.FIELDS,
        optional=module.OPTIONAL,
        aliases=module.ALIASES,
        labels=getattr(task.config, "labels", None),
        several_labels=getattr(module, "SEVERAL", False),
    )


def read_examples(project: Project, *, collect_problems: bool = False) -> tuple[Project, Examples]:
    """Read and split the data; the project comes back with the labels that were found in it, where it named none.

    Bad rows are collected instead of raised where that is asked for. Raises Mistake or Mistakes when files are missing
    or rows are bad, and when a split is empty.
    """
    data = project.data
    training = _read(project, data.train, collect_problems)
    project = _with_labels(project, training)
    shares = [share if isinstance(share, float | int) else 0.0 for share in (data.validation, data.test)]
    train, validation, test = split(training.records, *shares)
    notes, problems = list(training.notes), list(training.problems)
    files: dict[str, tuple[Any, ...]] = {}
    for name, spec in (("validation", data.validation), ("test", data.test)):
        if not isinstance(spec, float | int):
            reading = _read(project, spec, collect_problems)
            notes += reading.notes
            problems += reading.problems
            files[name] = reading.records
    validation, test = files.get("validation", validation), files.get("test", test)
    train, validation, test = _mixed(train), _mixed(validation), _mixed(test)
    if data.max_rows is not None and len(train) > data.max_rows:
        notes.append(f"{data.max_rows:,} of {len(train):,} training rows are used (max_rows)")
        train = train[: data.max_rows]
    version = data_version([*train, *validation, *test])
    for note in notes:
        say(note)
    return project, Examples(train, validation, test, tuple(notes), version, tuple(problems))


def labelled(project: Project) -> Project:
    """The project with the labels found in its data, where its task chooses among labels and names none."""
    return read_examples(project)[0] if getattr(project.task.config, "labels", None) == () else project


def model_of(project: Project) -> Model:
    """The project's model, made ready; an encoder with the head that its task needs, or its objective."""
    reads = getattr(project.objective.module, "HEAD", "")
    return open_model(project.model, project.precision, project.task, project.seed, project.quantization, reads)


def open_model(
    name: str,
    precision: Precision = "auto",
    task: Chosen | None = None,
    seed: int = 0,
    quantization: Quantization | None = None,
    reads: str = "",
) -> Model:
    """Load a model by name and make it ready for the engine; an encoder gets the head that `task` needs.

    Of running text `reads` says what the head scores. A head that the model has not is drawn from `seed`. Raises
    Mistake for an encoder and a task that wants text written.
    """
    from tunesmith.methods import _head
    from tunesmith.models.load import kind_named, load
    from tunesmith.prompts.documents import form_of
    from tunesmith.prompts.render import Template
    from tunesmith.recipes._reading import head_for, reader

    if kind_named(name) != "encoder":
        loaded = load(name)
        prepared = _prepared(loaded, precision, quantization)
        form = form_of(task.module.RECORD if task else None, prepared.kind == "encoder-decoder")
        return Model(loaded, prepared, Template(loaded.tokenizer, form=form))
    head = head_for(name, task, reads)
    loaded = load(name, head=head, seed=derive(seed, "head"))
    _head.mark(loaded.model, loaded.made)
    return Model(loaded, _prepared(loaded, precision, quantization), reader(loaded, head.kind, head.labels))


def _prepared(loaded: Loaded, precision: Precision, quantization: Quantization | None) -> Prepared:
    from tunesmith.engine.prepare import prepare

    made = prepare(loaded.model, precision, quantization)
    return replace(made, identity=loaded.identity, folder=loaded.folder)


def need_memory(project: Project) -> None:
    """Raise Mistake when the model, now that it is loaded, takes more memory by itself than the budget has."""
    from tunesmith.engine.fit import memory_limit_mb
    from tunesmith.engine.memory import held_mb

    held, limit = held_mb(), memory_limit_mb(project)
    if held > limit:
        raise Mistake(
            f"memory: {project.model} alone takes {held / 1000:.1f} GB; the budget is {limit / 1000:.1f} GB; "
            "raise --budget.memory_gb, or choose a smaller model"
        )


def need(rows: Sequence[Any], split_name: str) -> None:
    """Raise Mistake when a split that is about to be used has no rows."""
    if not rows:
        raise Mistake(
            f"{split_name}: no rows; expected some; set data.{split_name} to a share such as 0.1 or to a file"
        )


def folder_of(project: Project) -> Path:
    """The run's folder, made when missing. Raises Mistake where it cannot be."""
    from tunesmith.core.files import disk_mistakes, make_folder

    folder = Path(project.output_dir)
    with disk_mistakes(folder, "choose another --output_dir"):
        make_folder(folder)
    return folder


def _mixed(rows: Sequence[Any]) -> tuple[Any, ...]:
    """Rows in an order that has nothing to do with their file's, so that the first few stand for all of them.

    The order follows from what a row says: rows added later do not change which of two comes first.
    """
    return tuple(sorted(rows, key=lambda row: position(row, "order")))


def _read(project: Project, spec: Any, collect_problems: bool) -> Reading[Any]:
    data = project.data
    source = source_of(spec, columns=data.columns, format=data.format, encoding=data.encoding)
    if collect_problems:
        source = source.model_copy(update={"bad_rows": "skip"})
    return read_source(project.task, source)


def _with_labels(project: Project, reading: Reading[Any]) -> Project:
    labels = getattr(project.task.config, "labels", None)
    if labels is None or labels or not reading.labels:
        return project
    keys = {**project.task.config.model_dump(), "labels": list(reading.labels)}
    return project.model_copy(update={"task": choose("tasks", project.task.name, **keys)})

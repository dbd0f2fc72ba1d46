"""List the models known by name, pull one, describe one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import _show
from tunesmith.core import progress
from tunesmith.evaluation import amounts

if TYPE_CHECKING:
    from tunesmith.models.info import Info

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(help="A catalogue name, a hub id (owner/name), a folder or a .gguf file.", show_default=False)
]


@app.command("list")
def list_models() -> None:
    """The models known by a short name, and which of them are on this machine.

    Any other decoder of transformers works as well, by hub id or folder.

    Example:

        tunesmith models list
    """
    from tunesmith.models.catalog import catalog
    from tunesmith.models.source import find

    entries = [(entry, find(entry.name)) for entry in catalog().values()]
    value = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "parameters": entry.parameters,
            "context": entry.context,
            "licence": entry.licence,
            "good_for": entry.good_for,
            "source": entry.source,
            "folder": folder,
        }
        for entry, folder in entries
    ]

    def for_people() -> None:
        rows = [
            (
                entry.name,
                entry.kind,
                _count(entry.parameters),
                entry.context,
                entry.licence,
                bool(folder),
                entry.good_for,
            )
            for entry, folder in entries
        ]
        _show.table(("model", "kind", "parameters", "context", "licence", "here", "good for"), rows)

    _show.show(value, for_people)


@app.command("pull")
def pull_model(name: Name) -> None:
    """Bring a model to this machine, so that everything works offline after.

    Example:

        tunesmith models pull smollm2-135m-instruct
    """
    from tunesmith.models.folder import weight_files
    from tunesmith.models.source import fetch, find

    if find(name) is None:
        progress.say(f"fetching {name} ...")
    folder = fetch(name)
    size = sum(file.stat().st_size for file in weight_files(folder))
    value = {"name": name, "folder": folder, "bytes": size}
    _show.show(value, lambda: _show.line(f"{name} is in {folder} ({amounts.size(size)})"))


@app.command("info")
def describe_model(name: Name) -> None:
    """Size, shape, context and licence of a model; its weights are neither fetched nor loaded.

    Example:

        tunesmith models info smollm2-135m-instruct
    """
    from tunesmith.models.info import info

    found = info(name)
    _show.show(found, lambda: _print(found))


def _print(model: Info) -> None:
    shape = f"{model.layers} layers · {model.hidden} wide · {model.vocabulary:,} tokens known" if model.layers else None
    estimated = "" if model.folder else "about "
    _show.facts(
        (
            ("model", model.name),
            ("kind", f"{model.kind} · {model.architecture}" if model.architecture else model.kind),
            ("parameters", _count(model.parameters)),
            ("on disk", estimated + amounts.size(model.bytes)),
            ("shape", shape),
            ("context", f"{model.context:,} tokens"),
            ("chat template", model.chat_template),
            ("licence", model.licence or "not stated"),
            ("good for", model.good_for or None),
            ("folder", model.folder or f"not here yet: tunesmith models pull {model.name}"),
        )
    )


def _count(parameters: int) -> str:
    """Parameters as people say them: 135 M, 1.7 B."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"

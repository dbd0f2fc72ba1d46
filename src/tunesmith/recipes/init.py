"""Init: a task file for a person's own data, with a comment on every key worth a thought, and the reasons told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write
from tunesmith.data._spec import source_of
from tunesmith.models.source import check_name
from tunesmith.recipes._look import look
from tunesmith.recipes._task_file import task_file

MODEL = "smollm2-135m-instruct"


def init(
    folder: str | Path,
    data: str | Sequence[str],
    *,
    task: str | None = None,
    model: str = MODEL,
    format: str | None = None,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Look at the data, write `task.yaml` into `folder` (made when missing), and return what was chosen.

    `data` is a file, several, a package or a hub id; `task` is guessed where it is not given. `told` says in sentences
    what was chosen and why. Raises Mistake when there is a task file already, when the data cannot be read, and when no
    task or no column can be told.
    """
    file = Path(folder) / "task.yaml"
    if file.exists():
        raise Mistake(f"{file}: there already; expected a new project; give another folder, or move this file away")
    check_name(model)
    path = data if isinstance(data, str) else list(data)
    seen = look(source_of({"path": path}, format=format, encoding=encoding), task)
    atomic_write(file, task_file(seen, model, file.parent), remedy="give another folder")
    return {
        "file": str(file),
        "model": model,
        "task": seen.task.name,
        "formats": list(seen.formats),
        "columns": dict(seen.columns),
        "labels": list(seen.labels),
        "rows": seen.rows,
        "bad_rows": seen.bad_rows,
        "validation": seen.validation,
        "test": seen.test,
        "told": list(seen.told),
    }

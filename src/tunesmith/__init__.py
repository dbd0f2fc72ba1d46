"""Tunesmith: from your own examples to the cheapest language model that does the work.

The same recipes that the commands call, as functions::

    import tunesmith

    result = tunesmith.climb("task.yaml", minutes=20)
    print(result["verdict"])
    model = tunesmith.speaker(artifact="runs/movie-reviews")
    print(model.answer(["A film to remember."]))

A task is a file, or the same keys as a dictionary; further keys lie over it, with ``__`` for the dot
(``method__name="lora"``). What a person can put right is raised as `Mistake`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core import environment
from tunesmith.core.errors import Mistake

if TYPE_CHECKING:
    from tunesmith.core.config import Precision, Project
    from tunesmith.recipes.generate import Speaker

__all__ = ["Mistake", "check", "climb", "embed", "evaluate", "init", "load", "merge", "pretrain", "scale", "speaker"]
__all__ += ["sweep", "train"]

Task = str | Path | Mapping[str, Any]


def init(folder: str | Path, data: str | Sequence[str], **keys: Any) -> dict[str, Any]:
    """Look at data and write a commented task file for it into `folder`; see `recipes.init`."""
    from tunesmith.recipes.init import init as recipe

    return recipe(folder, data, **keys)


def load(task: Task, *, task_name: str | None = None, **keys: Any) -> Project:
    """The resolved task: a file, or a dictionary, with `keys` laid over it; of several tasks the one so called.

    Raises Mistakes, all at once.
    """
    from tunesmith.core.config import load_project

    return load_project(task, _overrides(keys) | ({} if task_name is None else {"task": task_name}))


def _overrides(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in keys.items()}


def check(task: Task, **keys: Any) -> dict[str, Any]:
    """Look at all of a task's data and say what is in them and what is wrong with them; see `recipes.check`."""
    environment.prepare()
    from tunesmith.recipes.check import check as recipe

    return recipe(load(task, **keys))


def climb(task: Task, *, minutes: float | None = None, memory_gb: float | None = None, **keys: Any) -> dict[str, Any]:
    """Try the rungs from cheap to dear and keep the cheapest that is as good as the best; see `recipes.climb`."""
    environment.prepare()
    from tunesmith.recipes.climb import climb as recipe

    budget: dict[str, Any] = {"budget__minutes": minutes, "budget__memory_gb": memory_gb}
    return recipe(load(task, **keys, **{key: value for key, value in budget.items() if value is not None}))


def train(task: Task, *, evaluate: bool = True, **keys: Any) -> dict[str, Any]:
    """Train the task's method, or several tasks together; see `recipes.train` and `recipes.mixture`."""
    environment.prepare()
    from tunesmith.core.config import Project
    from tunesmith.core.mixture import load as load_any

    asked = load_any(task, _overrides(keys))
    if isinstance(asked, Project):
        from tunesmith.recipes.train import train as recipe

        return recipe(asked, evaluate=evaluate)
    from tunesmith.recipes.mixture import mixture

    return mixture(asked, evaluate=evaluate)


def pretrain(
    data: str | Sequence[str], *, shape: str = "mini", vocab_size: int | None = None, **keys: Any
) -> dict[str, Any]:
    """Train a tokenizer and a small model from nothing on texts; see `recipes.pretrain`."""
    environment.prepare()
    from tunesmith.recipes.pretrain import pretrain as recipe

    overrides = {key.replace("__", "."): value for key, value in keys.items()}
    return recipe(data, shape=shape, vocab_size=vocab_size, overrides=overrides)


def evaluate(
    task: Task,
    *,
    artifact: str | Path | None = None,
    split: Literal["test", "validation"] = "test",
    how: Literal["random", "balanced", "similar"] = "balanced",
    calibrate: Literal["none", "contextual", "batch"] = "none",
    limit: int | None = None,
    task_name: str | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Measure a prompt (``shots=4``) or an artifact on a split; see `recipes.evaluate`."""
    environment.prepare()
    from tunesmith.recipes.evaluate import evaluate as recipe

    return recipe(
        load(task, task_name=task_name, **keys),
        artifact=artifact,
        split=split,
        how=how,
        calibrate=calibrate,
        limit=limit,
        task_name=task_name,
    )


def embed(
    texts: str | Sequence[str],
    *,
    model: str | None = None,
    artifact: str | Path | None = None,
    task: Task | None = None,
    task_name: str | None = None,
    pooling: Literal["mean", "first", "last"] | None = None,
    layer: int = -1,
    normalize: bool = True,
    precision: Precision | None = None,
    output: str | Path | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """The vectors of texts, by an encoder, a decoder or an artifact of either; see `recipes.embed`."""
    environment.prepare()
    from tunesmith.recipes.embed import embed as recipe

    project = load(task, **keys) if task is not None else None
    return recipe(
        texts,
        model=model,
        artifact=artifact,
        project=project,
        task_name=task_name,
        pooling=pooling,
        layer=layer,
        normalize=normalize,
        precision=precision,
        output=output,
    )


def merge(
    artifact: str | Path,
    *,
    task: Task | None = None,
    precision: Precision | None = None,
    output_dir: str | Path | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Make an artifact part of its base's weights: a plain model comes out; see `recipes.merge`."""
    environment.prepare()
    from tunesmith.recipes.merge import merge as recipe

    project = load(task, **keys) if task is not None else None
    return recipe(artifact, project=project, precision=precision or "auto", output_dir=output_dir)


def scale(
    artifact: str | Path,
    *,
    factor: float | None = None,
    max_kl: float | None = None,
    task: Task | None = None,
    task_name: str | None = None,
    limit: int | None = None,
    output_dir: str | Path | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Choose how strongly an artifact takes part, quality against forgetting; see `recipes.scale`."""
    environment.prepare()
    from tunesmith.recipes.scale import scale as recipe

    project = load(task, **keys) if task is not None else None
    return recipe(
        artifact,
        factor=factor,
        max_kl=max_kl,
        project=project,
        task_name=task_name,
        limit=limit,
        output_dir=output_dir,
    )


def sweep(
    task: Task,
    *,
    trials: int = 20,
    minutes: float | None = None,
    objectives: Sequence[str] = ("quality",),
    **keys: Any,
) -> dict[str, Any]:
    """Search the task's keys for the values that learn best; see `recipes.sweep`."""
    environment.prepare()
    from tunesmith.recipes.sweep import sweep as recipe

    return recipe(load(task, **keys), trials=trials, minutes=minutes, objectives=objectives)


def speaker(
    artifact: str | Path | None = None,
    *,
    model: str | None = None,
    task: Task | None = None,
    task_name: str | None = None,
    precision: Precision | None = None,
    **keys: Any,
) -> Speaker:
    """An artifact, a plain model or a task's untuned one to be asked; see `recipes.generate`.

    `task_name` is for an artifact of several tasks.
    """
    environment.prepare()
    from tunesmith.recipes.generate import speaker as recipe

    project = load(task, **keys) if task is not None else None
    return recipe(artifact=artifact, model=model, project=project, task_name=task_name, precision=precision)

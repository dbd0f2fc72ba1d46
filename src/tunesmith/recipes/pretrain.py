"""Pretrain: a model from nothing, its tokenizer too, on the person's own texts. Goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project, resolve
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write
from tunesmith.core.progress import say
from tunesmith.core.seed import derive
from tunesmith.models.save import save_model
from tunesmith.models.shapes import build, train_tokenizer
from tunesmith.models.shapes import shape as shape_called
from tunesmith.recipes._work import Examples, folder_of, need, read_examples
from tunesmith.recipes.train import train

START = "start"
"""The folder, in the run's, of the model with its random weights, from which training begins."""


def pretrain(
    data: str | Sequence[str],
    *,
    shape: str = "mini",
    vocab_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a tokenizer and a model of a named shape on texts; returns what `train` does.

    `data` are text files, or any source with a `text` column; `vocab_size` is the shape's own where it is not given.
    `overrides` are keys of a task file. The model lies in `artifact/` of `output_dir`: a folder as transformers writes
    it, which every `model:` takes. Raises Mistake as `train` does, and for a shape that there is not.
    """
    chosen = shape_called(shape)
    vocab_size = vocab_size or chosen.vocabulary
    usual = {
        "model": f"./{START}",
        "task": "language_modelling",
        "data": {"train": data if isinstance(data, str) else list(data), "validation": 0.05, "test": 0},
        "objective": "clm",
        "method": "full",
        "learning_rate": chosen.learning_rate,
        "weight_decay": 0.1,
        "per_device_train_batch_size": 16,
        "max_length": chosen.context,
        "output_dir": f"runs/{chosen.name}",
    }
    project = resolve(usual, overrides=overrides)
    project, examples = read_examples(project)
    need(examples.train, "train")
    start = folder_of(project) / START
    _begin(start, {"shape": chosen.name, "vocab_size": vocab_size}, project, examples)
    return train(project.model_copy(update={"model": str(start.absolute())}), has_past=False)


def _begin(start: Path, asked: dict[str, Any], project: Project, examples: Examples) -> None:
    """Make the tokenizer and the random weights, unless an earlier, interrupted run has made the very same."""
    told = {**asked, "seed": project.seed, "data": examples.version}
    kept = start / "start.json"
    if kept.exists():
        if json.loads(kept.read_text(encoding="utf-8")) != told:
            raise Mistake(f"{start.parent}: holds another model; choose another --output_dir, or remove the folder")
        return
    tokenizer = train_tokenizer((record.text for record in examples.train), asked["vocab_size"])
    model = build(shape_called(asked["shape"]), tokenizer, derive(project.seed, "weights"))
    say(f"{asked['shape']}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens in the vocabulary")
    save_model(model, tokenizer, start)
    atomic_write(kept, json.dumps(told) + "\n")

"""A whole model on disk in transformers' format: safetensors, configuration and tokenizer together, or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_folder
from tunesmith.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_REMEDY = "set output_dir to a folder with room that can be written"


def check_finite(weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise Mistake, naming the first few, when any weight is NaN or infinite: such an artifact is never written."""
    bad = [name for name, weight in weights.items() if weight.is_floating_point() and not torch.isfinite(weight).all()]
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise Mistake(
            f"{what}: got NaN or infinite values in {names}; expected finite weights, so nothing was written; "
            "train again with a lower learning_rate"
        )


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, dtype: torch.dtype | None = None
) -> Path:
    """Write a plain model (trained whole, or with its adapter merged) to `folder`, which appears whole or not at all.

    `dtype` casts floating weights on the way out, e.g. float32 masters to the bfloat16 they came from; the model itself
    is not touched. Raises Mistake when a weight is not finite, when the disk is full or read-only; RuntimeError when
    the model still carries modules that its own class does not have.
    """
    with atomic_folder(folder, remedy=_REMEDY) as partial:
        write_model(model, tokenizer, partial, dtype=dtype)
    return folder


def write_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write the files of `save_model` into a folder that is there, for callers with an atomic folder of their own."""
    weights = model.state_dict()
    _check_plain(model, weights)
    check_finite(weights, str(folder.name))
    in_memory = model.config.dtype  # saving leaves its name there, a text
    with quiet():
        model.save_pretrained(folder, state_dict=weights if dtype is None else _cast(weights, dtype))
    model.config.dtype = in_memory
    if dtype is not None:
        _tell_dtype(folder / "config.json", dtype)
    tokenizer.save_pretrained(folder)


def _check_plain(model: PreTrainedModel, weights: Mapping[str, Any]) -> None:
    """A state with the names of a wrapper loads as the untuned base in silence, so such a state is not written."""
    with torch.device("meta"):
        plain = set(type(model)(model.config).state_dict())
    if different := plain.symmetric_difference(weights):
        raise RuntimeError(f"not a plain {type(model).__name__}, merge or detach first: {sorted(different)[:4]}")


def _tell_dtype(config: Path, dtype: torch.dtype) -> None:
    """transformers writes the type the model has in memory, and would widen the weights again on loading."""
    keys = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(
        json.dumps(keys | {"dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n", encoding="utf-8"
    )


def _cast(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights in `dtype`; those that are one tensor under two names stay one, or they would be written twice."""
    done: dict[int, torch.Tensor] = {}
    cast = {}
    for name, weight in weights.items():
        if weight.data_ptr() not in done:
            done[weight.data_ptr()] = weight.to(dtype) if weight.is_floating_point() else weight
        cast[name] = done[weight.data_ptr()]
    return cast

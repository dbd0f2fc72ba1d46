"""What a model's folder must hold before it is loaded: a configuration, and whole weights that are not pickles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Mistake

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def allow_pickle() -> bool:
    """Whether the person asked for pickled weights by name: TUNESMITH_ALLOW_PICKLE=1. A pickle can run any code."""
    return os.environ.get("TUNESMITH_ALLOW_PICKLE", "").lower() in {"1", "true", "yes", "on"}


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as plain values. Raises Mistake when it is not JSON."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mistake(f"{path}: not JSON ({error}); expected a model's configuration; fetch the model again") from error
    if not isinstance(config, dict):
        raise Mistake(f"{path}: got a {type(config).__name__}; expected a model's configuration; fetch the model again")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers would read, in order of name; safetensors before pickles.

    A shard that the index names counts even when it is not there, so that the caller can miss it.
    """
    kinds = ["model.safetensors", *(["pytorch_model.bin"] if allow_pickle() else [])]
    for single in kinds:
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return [folder / single]
        if index.is_file():
            return sorted(
                {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
    return []


def is_whole(folder: Path) -> bool:
    """Whether the folder has a configuration and every file of weights."""
    files = weight_files(folder)
    return (folder / "config.json").is_file() and bool(files) and all(file.is_file() for file in files)


def check_folder(folder: Path, name: str) -> None:
    """Raise Mistake, saying what to do, unless `folder` holds a model that can be loaded."""
    if not (folder / "config.json").is_file():
        raise Mistake(f"model {name}: {folder} has no config.json; {_what_it_is(folder)}")
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise Mistake(f"model {name}: {folder} lacks {', '.join(missing)}; expected every shard; fetch the model again")
    if not files:
        raise Mistake(f"model {name}: {folder} has {_instead_of_weights(folder)}")
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file, name)


def _what_it_is(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter: give its base as `model` and this folder with --artifact"
    if found := sorted(folder.glob("*.gguf")):
        return f"type `{found[0]}` for the .gguf file in it"
    return "expected a folder as transformers' save_pretrained writes it"


def _instead_of_weights(folder: Path) -> str:
    if any(any(folder.glob(pattern)) for pattern in _PICKLES):
        return (
            "only pickled weights, which can run any code; expected safetensors; convert them, or set "
            "TUNESMITH_ALLOW_PICKLE=1 if you trust where they come from"
        )
    return "no weights; expected model.safetensors; fetch the model again"


def _check_safetensors(file: Path, name: str) -> None:
    """Read the header, which knows how long the file must be: a cut download is told before anything is built."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
    except SafetensorError as error:
        raise Mistake(f"model {name}: {file} is damaged ({error}); expected whole weights; fetch it again") from error

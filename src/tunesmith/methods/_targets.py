"""Which layers a method changes: all linear layers, a list of names, or a pattern."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import Mistake, nearest
from tunesmith.methods import _head

ALL_LINEAR = "all-linear"
LINEAR = (nn.Linear, Conv1D)
"""Layers that multiply by a matrix; GPT-2's Conv1D is one that keeps the matrix transposed."""


def find(model: nn.Module, targets: str | Collection[str]) -> dict[str, nn.Module]:
    """The linear layers that `targets` names, by their path in the model.

    ``all-linear`` is every linear layer but the output head; a head made for the task is never among them. A list holds
    names as PEFT understands them: the last parts of a path (``q_proj``, ``mlp.up_proj``) or a whole one. Any other
    text is a regular expression for the whole path or its last parts. Raises Mistake when a name, or the expression,
    matches nothing.
    """
    linear: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, LINEAR) and not _head.holds(model, path)
    }
    if targets == ALL_LINEAR:
        head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers' models
        found = {path: module for path, module in linear.items() if module is not head}
        if not found:
            raise Mistake("method.target_modules: this model has no linear layers; expected a causal language model")
        return found
    if isinstance(targets, str):
        return {path: linear[path] for path in _matching(linear, targets)}
    paths = {path for name in targets for path in _named(linear, name)}
    if not paths:
        raise Mistake(f"method.target_modules: got an empty list; type {ALL_LINEAR} or some of {_known(linear)}")
    return {path: linear[path] for path in linear if path in paths}


def names_for(model: nn.Module, paths: Collection[str]) -> list[str]:
    """The shortest list of names that stands for exactly `paths`, as PEFT reads it: last parts, or else the paths."""
    short = {path.rpartition(".")[2] for path in paths}
    reached = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in short}
    return sorted(short if reached == set(paths) else paths)


def ends_with(path: str, name: str) -> bool:
    """Whether `name` is the path, or its last parts."""
    return path == name or path.endswith(f".{name}")


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in the place `path` of the model."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _matching(linear: Mapping[str, nn.Module], pattern: str) -> list[str]:
    try:
        expression = re.compile(rf"(?:.*\.)?(?:{pattern})")
    except re.error as error:
        raise Mistake(
            f"method.target_modules: {pattern!r} is not a regular expression ({error}); "
            f"type {ALL_LINEAR}, a list of names, or a pattern such as .*self_attn.*"
        ) from None
    found = [path for path in linear if expression.fullmatch(path)]
    if not found:
        raise Mistake(f"method.target_modules: {pattern!r} matches no linear layer; {_hint(linear, pattern)}")
    return found


def _named(linear: Mapping[str, nn.Module], name: str) -> list[str]:
    found = [path for path in linear if ends_with(path, name)]
    if not found:
        raise Mistake(f"method.target_modules: no linear layer is called {name!r}; {_hint(linear, name)}")
    return found


def _hint(linear: Iterable[str], word: str) -> str:
    return nearest(word, [ALL_LINEAR, *_last_parts(linear)])


def _known(linear: Iterable[str]) -> str:
    return ", ".join(_last_parts(linear))


def _last_parts(paths: Iterable[str]) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in paths})

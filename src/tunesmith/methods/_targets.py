"""Which layers a method changes: all linear layers, a list of names, or a pattern; less some, or in some blocks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from pydantic import Field
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake, nearest
from tunesmith.methods import _head

Value = TypeVar("Value")
ALL_LINEAR = "all-linear"
Kinds = tuple[type[nn.Module], ...]
LINEAR = (nn.Linear, Conv1D)
"""Layers that multiply by a matrix; GPT-2's Conv1D is one that keeps the matrix transposed."""
LINEAR_OR_EMBEDDING: Kinds = (*LINEAR, nn.Embedding)


class Targets(Section):
    """The keys by which a method is told its layers, named and read as in PEFT."""

    target_modules: str | list[str] = Field(
        ALL_LINEAR, description="all-linear, a list of layer names, or a regular expression"
    )
    exclude_modules: str | list[str] = Field(
        default_factory=list, description="of those, the ones left out: a list of names, or a regular expression"
    )
    layers_to_transform: int | list[int] = Field(
        default_factory=list, description="only in these blocks of the model, counted from 0; default: in all"
    )


def select(model: nn.Module, config: Targets, kinds: Kinds = LINEAR) -> dict[str, nn.Module]:
    """The layers that `config` means, by their path: those that `find` finds, less what it excludes.

    Raises Mistake as `find` does, and where an exclusion or a block's number meets none of them, or none is left.
    """
    found = find(model, config.target_modules, kinds)
    excluded = set(_reached(found, config.exclude_modules, "exclude_modules", "target"))
    left = {path: module for path, module in found.items() if path not in excluded}
    if config.layers_to_transform != []:
        left = _in_blocks(left, config.layers_to_transform)
    if not left:
        raise Mistake("method.target_modules: nothing is left of the targets; exclude fewer of them")
    return left


def _in_blocks(found: Mapping[str, nn.Module], blocks: int | list[int]) -> dict[str, nn.Module]:
    wanted = [blocks] if isinstance(blocks, int) else blocks
    numbers = {path: _block(path) for path in found}
    known = sorted({number for number in numbers.values() if number is not None})
    for number in wanted:
        if number not in known:
            raise Mistake(f"method.layers_to_transform: no target lies in block {number}; expected some of {known}")
    return {path: module for path, module in found.items() if numbers[path] in wanted}


def find(model: nn.Module, targets: str | Collection[str], kinds: Kinds = LINEAR) -> dict[str, nn.Module]:
    """The layers of `kinds` that `targets` names, by their path in the model.

    ``all-linear`` is every linear layer but the output head; a head made for the task is never among them. A list holds
    names as PEFT understands them: the last parts of a path (``q_proj``, ``mlp.up_proj``) or a whole one. Any other
    text is a regular expression for the whole path or its last parts. Raises Mistake when a name, or the expression,
    matches nothing.
    """
    there: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, kinds) and not _head.holds(model, path)
    }
    if targets == ALL_LINEAR:
        head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers' models
        found = [path for path, module in there.items() if isinstance(module, LINEAR) and module is not head]
        if not found:
            raise Mistake("method.target_modules: this model has no linear layers; expected a causal language model")
        return {path: there[path] for path in found}
    paths = set(_reached(there, targets, "target_modules", "linear layer" if kinds is LINEAR else "layer"))
    if not paths:
        raise Mistake(f"method.target_modules: got an empty list; type {ALL_LINEAR} or some of {_known(there)}")
    return {path: there[path] for path in there if path in paths}


def find_parameters(model: nn.Module, names: Collection[str]) -> dict[str, list[str]]:
    """The matrices, or stacks of them, that `names` means: the path of their module, and their names in it.

    A name is the last parts of a parameter's path, as PEFT's `target_parameters` are (``experts.gate_up_proj``). Raises
    Mistake when a name matches nothing.
    """
    there = [path for path, parameter in model.named_parameters() if parameter.dim() in (2, 3)]
    chosen = {path for name in names for path in _named(there, name, "target_parameters", "matrix")}
    found: dict[str, list[str]] = {}
    for path in there:
        if path in chosen:
            module, _, name = path.rpartition(".")
            found.setdefault(module, []).append(name)
    return found


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


def for_path(path: str, patterns: Mapping[str, Value], usual: Value) -> Value:
    """The value of the first pattern that stands for `path` or its last parts, as in PEFT, else the usual one."""
    return next((value for pattern, value in patterns.items() if _stands_for(pattern, path)), usual)


def refuse_idle(patterns: Collection[str], paths: Collection[str], key: str) -> None:
    """Raise Mistake for a pattern of `for_path` that stands for none of the `paths`, or is none."""
    for pattern in patterns:
        _matching(paths, pattern, key, "target")


def _stands_for(pattern: str, path: str) -> bool:
    return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", path) is not None


def _block(path: str) -> int | None:
    """The number of the block a layer lies in: the first number in its path."""
    found = re.search(r"\.(\d+)\.", path)
    return int(found[1]) if found else None


def _reached(there: Iterable[str], targets: str | Collection[str], key: str, noun: str) -> list[str]:
    there = list(there)
    if isinstance(targets, str):
        return _matching(there, targets, key, noun)
    return [path for name in targets for path in _named(there, name, key, noun)]


def _matching(there: Collection[str], pattern: str, key: str, noun: str) -> list[str]:
    try:
        found = [path for path in there if _stands_for(pattern, path)]
    except re.error as error:
        raise Mistake(
            f"method.{key}: {pattern!r} is not a regular expression ({error}); "
            f"type {ALL_LINEAR}, a list of names, or a pattern such as .*self_attn.*"
        ) from None
    if not found:
        raise Mistake(f"method.{key}: {pattern!r} matches no {noun}; {_hint(there, pattern)}")
    return found


def _named(there: Collection[str], name: str, key: str, noun: str) -> list[str]:
    found = [path for path in there if ends_with(path, name)]
    if not found:
        raise Mistake(f"method.{key}: no {noun} is called {name!r}; {_hint(there, name)}")
    return found


def _hint(paths: Iterable[str], word: str) -> str:
    return nearest(word, [ALL_LINEAR, *_last_parts(paths)])


def _known(paths: Iterable[str]) -> str:
    return ", ".join(_last_parts(paths))


def _last_parts(paths: Iterable[str]) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in paths})

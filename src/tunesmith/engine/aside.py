"""Tensors put aside to come back to: copies in memory, or in a file where copies would take too much of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.files import disk_mistakes

_REMEDY = "set output_dir to a place with room"


class Aside:
    """Tensors by name, as they were when they were put here; in `file` (safetensors) where one is named.

    From a file they come back one at a time, so that no second copy of all of them is ever in memory. It is false while
    nothing was put here.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._copies: dict[str, Tensor] = {}
        self._names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._names)

    @property
    def names(self) -> tuple[str, ...]:
        """What lies here."""
        return self._names

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Remember `tensors` in the place of what was here before. Raises Mistake when the disk is full."""
        if self.file is None:
            self._copies = {name: _copied(tensor, self._copies.get(name)) for name, tensor in tensors.items()}
        else:
            with disk_mistakes(self.file, _REMEDY):
                save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, self.file)
        self._names = tuple(tensors)

    def items(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Names that begin with `prefix`, without it, and a copy of each tensor, one after the other."""
        wanted = [name for name in self._names if name.startswith(prefix)]
        if self.file is None:
            yield from ((name.removeprefix(prefix), self._copies[name].clone()) for name in wanted)
        elif wanted:
            with safe_open(self.file, framework="pt") as tensors:  # cloned: they lie in the file, which will change
                yield from ((name.removeprefix(prefix), tensors.get_tensor(name).clone()) for name in wanted)

    def write(self, target: Path) -> None:
        """Write what lies here to another file."""
        if self.file is None:
            save_file({name: tensor.contiguous() for name, tensor in self._copies.items()}, target)
        else:
            shutil.copyfile(self.file, target)

    def read(self, source: Path) -> None:
        """Put here what `write` wrote."""
        if self.file is None:
            self.put(load_file(source))
        else:
            with disk_mistakes(self.file, _REMEDY):
                shutil.copyfile(source, self.file)
            with safe_open(source, framework="pt") as tensors:
                self._names = tuple(tensors.keys())


def _copied(tensor: Tensor, into: Tensor | None) -> Tensor:
    """A copy, in the memory of an older one where there is one."""
    with torch.no_grad():
        return tensor.detach().clone() if into is None else into.copy_(tensor.detach())

"""Single weights out of a model's files, as they lie there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import Mistake
from tunesmith.models.folder import weight_files

if TYPE_CHECKING:
    from torch import Tensor


def stored_weight(folder: Path, path: str) -> Tensor:
    """The weight of the layer at `path` of a model whose files lie in `folder`, in the type it is stored in.

    A file may leave out the first parts of a path: the body of an encoder is often saved without the name it has below
    a head. Raises Mistake where no safetensors file has it.
    """
    from safetensors import safe_open

    parts = path.split(".")
    names = [".".join((*parts[dropped:], "weight")) for dropped in range(len(parts))]
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as weights:
                held = set(weights.keys())
                for name in names:
                    if name in held:
                        found: Tensor = weights.get_tensor(name)
                        return found
    raise Mistake(f"model: the safetensors files of {folder} have no weight of {path}; expected {names[0]}")

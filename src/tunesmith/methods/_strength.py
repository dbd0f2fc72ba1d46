"""How strongly what was learned takes part: once, half, not at all, of the same artifact, without training again."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment


def has_strength(method: ModuleType) -> bool:
    """Whether what a method learns can be made weaker afterwards: it says how, or is trained in place."""
    return hasattr(method, "scaled") or (method.MERGEABLE and method.PEFT_TYPE is None)


def at_strength(
    model: nn.Module, method: ModuleType, learned: Mapping[str, Tensor], factor: float
) -> dict[str, Tensor]:
    """The weights of the attached `method` with which the model has changed `factor` times as much as with `learned`.

    ``W + factor · (W' − W)`` for every weight that differs from the base's: 0 is the base, 1 is as learned. Of weights
    trained in place it is the interpolation of WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903, eq. 1); a method that
    adds something to the base says how in its `scaled`. Raises Mistake where what was learned is no such change.
    """
    if hasattr(method, "scaled"):
        return dict(method.scaled(model, learned, factor))
    there = _attachment.attached(model)
    originals = there.originals if there is not None else {}
    if not originals or originals.keys() != learned.keys():
        name = method.__name__.rpartition(".")[2]
        raise Mistake(
            f"scale: {name} is not a change added to the base's weights; expected an artifact of lora or of another "
            "method that adds one, or of weights trained in place (full, bitfit)"
        )
    with torch.no_grad():
        return {name: torch.lerp(originals[name].float(), weight.float(), factor) for name, weight in learned.items()}

"""Frozen weights rounded to 8 bits for decoding few rows: a step's time is that of reading weights, so half the bytes.

Each output channel has its own scale, ``W ≈ s · round(W / s)`` with ``s = max |W| / 127`` (LLM.int8(), arXiv
2208.07339, eq. 3, without its outliers). Only the product of a few rows gains; of more, the weights stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.engine import native

ROWS = 4
"""Rows up to which the rounded weights are faster: of 5 and more they are not (LOG.md)."""


@dataclass(slots=True)
class Eighths:
    """The rounded twins of weights, each made the first time it is asked for."""

    _made: dict[int, tuple[Tensor, int, Tensor, Tensor]] = field(default_factory=dict)

    def of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`weight [out, in]` as int8 and its scales `[out]`, made anew when the weight has changed since."""
        kept = self._made.get(weight.data_ptr())
        if kept is None or kept[0].shape != weight.shape or kept[1] != _changes(weight):
            # The weight itself is kept along: while it lives nothing else can lie at its place.
            kept = self._made[weight.data_ptr()] = (weight, _changes(weight), *rounded(weight, weight.dtype))
        return kept[2], kept[3]


def _changes(weight: Tensor) -> int:
    """How often a weight was written to; one made in inference mode is not counted, and not written to any more."""
    return 0 if weight.is_inference() else weight._version


def multiply(x: Tensor, rounded: Tensor, scales: Tensor) -> Tensor:
    """``x Wᵀ`` of `x [rows, in]`, in the type of `x`, `[rows, out]`."""
    kernels = native.of(x.device, x.dtype)
    if kernels is None:
        return torch._weight_int8pack_mm(x, rounded, scales)
    out = torch.empty((len(x), len(rounded)), dtype=x.dtype)
    kernels.call("few_eighths", x, rounded, scales, out, *x.shape, len(rounded))
    return out


def rounded(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`weight [out, in]` as int8, and its scales `[out]` in `dtype`, which are rounded first: steps are multiples."""
    scales = weight.abs().amax(dim=1).float().div_(127).clamp_(min=1e-12).to(dtype)
    steps = (weight.float() / scales.float().unsqueeze(1)).round_().clamp_(-127, 127)
    return steps.to(torch.int8), scales

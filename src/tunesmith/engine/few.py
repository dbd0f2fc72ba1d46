"""Products of a few rows, as a decoding step has them: their time is that of reading the weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.engine import native

ROWS = 32
"""Rows up to which our kernel is the faster one: half of oneDNN's time up to 12 rows, nine tenths at 32 (LOG.md)."""


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """``x Wᵀ`` of `x [rows, in]` and `weight [out, in]`, in their type, `[rows, out]`."""
    kernels = native.of(x.device, x.dtype) if len(x) <= ROWS and x.dtype == weight.dtype else None
    if kernels is None:
        return functional.linear(x, weight)
    out = torch.empty((len(x), len(weight)), dtype=x.dtype)
    kernels.call("few", x, weight, out, *x.shape, len(weight))
    return out

"""Products ``x Wᵀ`` of not too many rows, by a kernel of our own that reads the weights as they lie.

A decoding step's time is that of reading the weights, and a short pack's is not all that of multiplying: oneDNN lays
every weight out anew for each product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.engine import native

ROWS = {torch.bfloat16: 512, torch.float32: 128}
"""Rows up to which our kernel is the faster one (LOG.md)."""


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """``x Wᵀ`` of `x [rows, in]` and `weight [out, in]`, in their type, `[rows, out]`."""
    suits = x.dtype == weight.dtype and len(x) <= ROWS.get(x.dtype, 0)
    kernels = native.of(x.device, x.dtype) if suits else None
    if kernels is None:
        return functional.linear(x, weight)
    out = torch.empty((len(x), len(weight)), dtype=x.dtype)
    kernels.call("few", x, weight, out, *x.shape, len(weight))
    return out

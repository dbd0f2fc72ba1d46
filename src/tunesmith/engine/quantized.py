"""Linear layers whose frozen weights are stored in 4 or 8 bits, and are made whole again for each product alone.

``nf4`` and ``fp4`` are those of QLoRA (arXiv 2305.14314): 64 weights in turn share a scale, ``W ≈ scale · code[q]``
with 16 values in the code (eq. 4), and the scales themselves are kept in 8 bits (its double quantization): 4.13 bits a
weight. They are made and read by bitsandbytes, on CUDA by its own kernels. ``int8`` has 255 even steps and a scale an
output (`engine.eighth`). Embeddings, norms and the output head stay as they are, as in QLoRA.

The product runs at `compute` precision with exactly the numbers that `dequantized` gives; nothing made whole outlives
it, in the backward pass it is made again.
"""

from __future__ import annotations

from copy import copy
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.core.config import Quantization
from tunesmith.core.errors import Mistake
from tunesmith.engine import eighth
from tunesmith.engine.linear import Linear
from tunesmith.methods import _head

BLOCK, SCALES = 64, 256
"""Weights that share a scale in 4 bits, and scales that share one of their own, as in QLoRA."""
PART = 1 << 17
"""Weights quantized at a time: whole matrices leave the process 300 MB larger for good (SmolLM2-135M)."""


class Quantized(Linear):
    """A frozen `Linear` that holds its weight in `kind`: `weight` is bytes, `dequantized` the numbers they mean."""

    kind: Quantization
    scales: Any

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as it is multiplied, `[out, in]`."""
        if self.kind == "int8":
            scales: Tensor = self.scales.to(dtype)
            return self.weight.view(self.out_features, self.in_features).to(dtype) * scales
        state = copy(self.scales)
        state.dtype = dtype
        whole: Tensor = _bitsandbytes(self.kind).dequantize_4bit(self.weight.view(torch.uint8).unsqueeze(1), state)
        return whole.view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """Map `input [..., in]` to `[..., out]`, float32."""
        out: Tensor = _Through.apply(input.to(self.compute), self)  # type: ignore[no-untyped-call]  # of torch
        return out.float() if self.bias is None else out.float() + self.bias


class _Through(torch.autograd.Function):
    """y = x Wᵀ, dx = g W; W is made twice rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Quantized) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.dequantized(layer.compute))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantized(ctx.layer.compute), None


def quantize(model: nn.Module, kind: Quantization, device: torch.device) -> None:
    """Store every frozen `Linear` of the model in `kind`, on `device`, but for its output head and one made for a task.

    A weight that another layer shares stays too. Those that are quantized already stay as they are. Raises Mistake
    where bitsandbytes is missing and where the model has no such layer.
    """
    held = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    head = model.get_output_embeddings()  # type: ignore[operator]  # of transformers' models
    for path, layer in model.named_modules():
        free = layer is not head and not _head.holds(model, path)
        if type(layer) is Linear and free and not layer.weight.requires_grad and held.count(id(layer.weight)) == 1:
            _quantize(layer, kind, device)
    if not _layers(model):
        raise Mistake(
            f"quantization: {type(model).__name__} has no linear layers that can be stored in {kind}; "
            "expected a model such as Llama, Qwen or BERT; leave quantization out"
        )


def dequantize(model: nn.Module, dtype: torch.dtype) -> None:
    """Make every quantized layer a plain one of the numbers it was multiplied with, stored in `dtype`."""
    for layer in _layers(model):
        layer.weight = nn.Parameter(layer.dequantized(dtype), requires_grad=False)
        layer.__class__ = Linear
        del layer.scales, layer.kind


def largest(model: nn.Module) -> int:
    """Bytes that the largest quantized weight takes while it is whole; 0 where none is quantized."""
    whole = [layer.in_features * layer.out_features * layer.compute.itemsize for layer in _layers(model)]
    return max(whole, default=0)


def _layers(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, Quantized)]


def _quantize(layer: Any, kind: Quantization, device: torch.device) -> None:
    weight = layer.weight.data.to(device)
    if kind == "int8":
        stored, scales = eighth.rounded(weight, layer.compute)
        scales = scales.unsqueeze(1)
    else:
        stored, scales = _in_4_bits(weight, kind)
    layer.__class__ = Quantized
    layer.weight = nn.Parameter(stored.flatten(), requires_grad=False)  # nobody shall take bytes for a matrix
    layer.kind, layer.scales = kind, scales


def _in_4_bits(weight: Tensor, kind: str) -> tuple[Tensor, Any]:
    """The bytes, two weights in each, and what bitsandbytes needs to read them."""
    library = _bitsandbytes(kind)
    # As one long row: on a CPU bitsandbytes 0.50 reads rows that are no multiple of 64 wide with wrong scales.
    flat = weight.flatten()
    parts = [library.quantize_4bit(part, blocksize=BLOCK, quant_type=kind) for part in torch.split(flat, PART)]
    scales = torch.cat([state.absmax for _, state in parts])
    mean = scales.mean()
    small, of_scales = library.quantize_blockwise(scales - mean, blocksize=SCALES)
    state = library.QuantState(
        absmax=small,
        shape=flat.shape,
        dtype=weight.dtype,
        blocksize=BLOCK,
        code=parts[0][1].code,
        quant_type=kind,
        offset=mean,
        state2=of_scales,
    )
    # T5 casts its activations to a layer's type, but never to int8.
    return torch.cat([part for part, _ in parts]).view(torch.int8), state


def _bitsandbytes(kind: str) -> Any:
    try:
        return import_module("bitsandbytes.functional")
    except ImportError:
        raise Mistake(
            f"quantization: got {kind}, which needs bitsandbytes, which is not installed; "
            'expected the library; type pip install "tunesmith[bitsandbytes]", or --quantization int8'
        ) from None

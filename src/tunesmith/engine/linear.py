"""Linear layers and embeddings that hold frozen weights small and keep the residual stream in float32.

They *are* `nn.Linear` and `nn.Embedding` to everything that looks for those (methods wrap them, transformers ties
them); only their arithmetic differs: input and output are float32, the product runs at `compute` precision. Weights
that train are float32 and are rounded for the product alone. Measured: adding an adapter's delta in bfloat16 rounds
its first updates away and the loss trails float32 by several steps; with the sum in float32 it follows to 0.01 nats.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """`nn.Linear` with a float32 face: `[..., in]` to `[..., out]`, product in `compute` precision."""

    compute: torch.dtype

    def forward(self, input: Tensor) -> Tensor:
        if self.compute == torch.float32:
            return functional.linear(input, self.weight.float(), None if self.bias is None else self.bias.float())
        out = functional.linear(input.to(self.compute), self.weight.to(self.compute)).float()
        return out if self.bias is None else out + self.bias


class Embedding(nn.Embedding):
    """`nn.Embedding` whose rows come out in float32, whatever they are stored in."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


OURS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Linear, nn.Embedding: Embedding}


def replace(model: nn.Module, compute: torch.dtype, ours: Mapping[type[nn.Module], type[nn.Module]] = OURS) -> None:
    """Put ours in the place of every plain linear layer and embedding; they hold the very same parameters (and ties).

    Subclasses that compute something else (Gemma's scaled embedding) stay as they are. Doing it again only sets
    `compute`.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in ours:
                substitute = ours[type(child)].__new__(ours[type(child)])
                substitute.__dict__.update(child.__dict__)
                setattr(parent, name, substitute)
    for module in model.modules():
        if isinstance(module, Linear):
            module.compute = compute

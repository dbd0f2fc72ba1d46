"""A head of our own over a frozen body, decoder or encoder: a row's states are pooled, dense layers give its labels.

Nothing below the pooled states has a gradient, so the states of a row are the same whenever it is asked for: they are
computed once and remembered (`states`), and an epoch costs next to nothing. The engine fills that memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.config import Pooling
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment

_NAME = "tunesmith_label_head"


class LabelHead(nn.Module):
    """Dense layers of the given widths with a GELU after each, then a linear layer that starts at zero.

    `pooling` and `layer` say what it wants of the body: the mean over a row's tokens, its last or its first, of the
    states after that layer, counted from 1 or back from -1 (the last, after its norm). Everything is float32.
    """

    def __init__(self, width: int, labels: int, layers: Sequence[int], pooling: Pooling, layer: int) -> None:
        super().__init__()
        self.pooling, self.layer = pooling, layer
        self.states: dict[tuple[int, ...], Tensor] = {}
        widths = [width, *layers]
        pairs = itertools.pairwise(widths)
        self.dense = nn.Sequential(*(part for pair in pairs for part in (nn.Linear(*pair), nn.GELU())))
        self.out = nn.Linear(widths[-1], labels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `pooled [rows, hidden]` to `[rows, labels]`."""
        scores: Tensor = self.out(self.dense(pooled))
        return scores


def attach(model: Any, method: str, layers: Sequence[int], pooling: Pooling, layer: int) -> None:
    """Freeze the whole model, a head it came with too, and put a fresh `LabelHead` beside it, which alone trains.

    Raises Mistake for a layer without width.
    """
    if any(width < 1 for width in layers):
        raise Mistake(f"method.layers: got {list(layers)}; expected widths of 1 at least, such as [256]")
    _attachment.claim(model, method, head=False)
    width, device = model.config.get_text_config().hidden_size, next(model.parameters()).device
    head = LabelHead(width, model.config.num_labels, layers, pooling, layer)
    model.add_module(_NAME, head.to(device=device, dtype=torch.float32).train(model.training))


def detach(model: nn.Module, method: str) -> None:
    """Take the head away: the model is as it was."""
    _attachment.expect(model, method)
    delattr(model, _NAME)
    _attachment.release(model, method)


def head_of(model: nn.Module) -> LabelHead | None:
    """The model's `LabelHead`, None where none is attached."""
    found = getattr(model, _NAME, None)
    return found if isinstance(found, LabelHead) else None


def state(model: nn.Module, method: str) -> dict[str, Tensor]:
    """The head's weights, ``dense.0.weight`` … ``out.bias``."""
    _attachment.expect(model, method)
    head = head_of(model)
    assert head is not None
    return {name: parameter.detach() for name, parameter in head.named_parameters()}


def restore(model: nn.Module, method: str, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model, method), weights, method)

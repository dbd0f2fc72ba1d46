"""Methods that put something trained around layers of the base: laid on, named, merged and taken away in one way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _targets

PREFIX = "base_model.model."
"""What PEFT puts before a path in the model."""


class Wrapper(nn.Module):
    """The layer `base` with something trained around it, which is float32.

    `changes` are the names of the base's parameters that a merge changes.
    """

    def __init__(self, base: nn.Module, changes: Sequence[str] = ("weight",)) -> None:
        super().__init__()
        self.base = base
        self.changes = tuple(changes)

    @property
    def weight(self) -> Tensor:
        """The base's weight: transformers' code here and there asks a layer for its type."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]  # nn.Module types every attribute Tensor | Module
        return weight

    def learned(self) -> dict[str, Tensor]:
        """What is trained, by the name that PEFT gives it behind the layer's path."""
        raise NotImplementedError

    def merged(self) -> dict[str, Tensor]:
        """The base's parameters, by name, with what was learned in them (float32, shaped as the base's)."""
        raise NotImplementedError


def lay_on(model: nn.Module, method: str, config: Any, wrapped: Mapping[str, Wrapper]) -> None:
    """Freeze the model in the name of `method` and put the wrappers in their places, by path."""
    _attachment.claim(model, method, config)
    for path, layer in wrapped.items():
        _targets.replace(model, path, layer.train(layer.base.training))


def wrappers(model: nn.Module) -> Iterator[tuple[str, Wrapper]]:
    """The paths and wrappers that are on the model."""
    yield from [(path, module) for path, module in model.named_modules() if isinstance(module, Wrapper)]


def take_away(model: nn.Module, method: str) -> None:
    """The base again: its own modules are back in their places."""
    _attachment.expect(model, method)
    for path, layer in wrappers(model):
        _targets.replace(model, path, layer.base)
    _attachment.release(model, method)


def merge(model: nn.Module, method: str) -> None:
    """Write what was learned into the base's own weights, in their own type, and take the wrappers away.

    The old weight tensors are left as they were for whoever else holds them. Raises Mistake for a quantized layer, and
    for a weight that another layer shares (a head and its embedding), which would change along with it.
    """
    _attachment.expect(model, method)
    holders = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    for path, layer in wrappers(model):
        for name in layer.changes:
            parameter = getattr(layer.base, name)
            if not parameter.is_floating_point():
                raise Mistake(
                    f"{method}: {path} is quantized and cannot take the update in; "
                    "type tunesmith merge RUN, or load the base unquantized to merge"
                )
            if holders.count(id(parameter)) > 1:
                raise Mistake(
                    f"{method}: {path} shares its weight with another layer, which would change with it; "
                    f"keep the adapter beside the base, or train one without {path}"
                )
    with torch.no_grad():
        for _, layer in wrappers(model):
            for name, tensor in layer.merged().items():
                parameter = getattr(layer.base, name)
                parameter.data = tensor.to(parameter.dtype)
    take_away(model, method)


def state(model: nn.Module, method: str) -> dict[str, Tensor]:
    """What was learned, under PEFT's names: ``base_model.model.<path>.<name>``."""
    _attachment.expect(model, method)
    return {
        f"{PREFIX}{path}.{name}": tensor.detach()
        for path, layer in wrappers(model)
        for name, tensor in layer.learned().items()
    }


def widths(base: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; Conv1D keeps its weight as `[in, out]`."""
    if isinstance(base, Conv1D):
        return int(base.nx), int(base.nf)
    assert isinstance(base, nn.Linear)
    return base.in_features, base.out_features


def matrix(base: nn.Module) -> Tensor:
    """The weight of a linear layer as `[out, in]`, float32; of a quantized one the numbers that it multiplies with.

    Raises Mistake for a weight in bits that only somebody else can read.
    """
    if hasattr(base, "dequantized"):
        whole: Tensor = base.dequantized()  # type: ignore[operator]  # as above
        return whole
    weight: Tensor = base.weight  # type: ignore[assignment]  # nn.Module types every attribute Tensor | Module
    if not weight.is_floating_point():
        raise Mistake(f"method: a layer is stored as {weight.dtype}; expected a model that is not quantized")
    return oriented(base, weight.detach().float())


def oriented(base: nn.Module, weight: Tensor) -> Tensor:
    """A weight from the way `base` keeps it to `[out, in]`, or back."""
    return weight.T if isinstance(base, Conv1D) else weight

"""What every method shares: the base is frozen and remembered when one is attached, and given back when it goes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.files import disk_mistakes
from tunesmith.methods import _head

_KEY = "tunesmith_attachment"
LARGE_MB = 200
"""Tensors of the base above this are kept aside in a file while others are trained in their place."""


@dataclass
class Attachment:
    """What is attached to a model, and what the base was like before.

    It lies on the model itself, so a copy of the model takes its own along. `originals` holds the base's tensors that a
    method trains in place (full, bitfit), by parameter name; `config` the method's, where it needs it later; `memory`
    what it remembers from step to step, which checkpoints keep; `kept` what it needs to go again; `head` the originals
    of a head made for the task (`_head`).
    """

    method: str
    required_grad: dict[str, bool]
    originals: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    config: Any = None
    kept: Any = None
    head: dict[str, Tensor] = field(default_factory=dict)


class Unsuited(Mistake):
    """A method that this model, as it is stored, cannot have; a climb goes on with the others."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """How much of a model is trained: `count` numbers in the parameters called `names`, of `total` in the model."""

    count: int
    total: int
    names: tuple[str, ...]


def attached(model: nn.Module) -> Attachment | None:
    """What is attached to the model, or None for a plain base."""
    found: Attachment | None = model.__dict__.get(_KEY)
    return found


def claim(model: nn.Module, method: str, config: Any = None, *, head: bool = True) -> Attachment:
    """Freeze the whole model but for a head made for the task, in the name of `method`; remember what it was like.

    Without `head` that head is frozen as well, for a method that brings its own.

    Raises RuntimeError when something is attached already: methods do not stack.
    """
    refuse_stacking(model, method)
    attachment = Attachment(method, {name: p.requires_grad for name, p in model.named_parameters()}, config=config)
    setattr(model, _KEY, attachment)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if head and _head.holds(model, name):
            attachment.head[name] = parameter.data
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad_(True)
    return attachment


def refuse_stacking(model: nn.Module, method: str) -> None:
    """Raise RuntimeError when something is attached already: methods do not stack."""
    if (before := attached(model)) is not None:
        raise RuntimeError(f"{before.method} is attached to this model; detach it before attaching {method}")


def release(model: nn.Module, method: str, *, keep: bool = False) -> None:
    """End what `claim` began: the base's own tensors and `requires_grad` come back.

    With `keep` what was trained in place stays and the originals are let go. Call it when the module tree is the base's
    own again. Raises RuntimeError when `method` is not what is attached.
    """
    attachment = expect(model, method)
    originals = attachment.originals | attachment.head
    for name, parameter in model.named_parameters():
        if name in originals:
            parameter.grad = None
            if not keep:
                parameter.data = originals[name]
        parameter.requires_grad_(attachment.required_grad[name])
    delattr(model, _KEY)


def expect(model: nn.Module, method: str) -> Attachment:
    """The attachment of `method`; raises RuntimeError when another or none is there."""
    attachment = attached(model)
    if attachment is None or attachment.method != method:
        there = "nothing" if attachment is None else attachment.method
        raise RuntimeError(f"expected {method} to be attached to this model, found {there}")
    return attachment


def train_in_place(model: nn.Module, method: str, names: Iterable[str], config: Any = None) -> None:
    """Claim the model for `method` and make the base's own parameters `names` trainable, in float32.

    Their tensors are kept for `release`, large ones in a file: that costs 4 bytes a number beside them. Tied parameters
    are one object and stay tied. Raises Unsuited for a quantized parameter, which has no gradient.
    """
    wanted = set(names)
    chosen = [(name, parameter) for name, parameter in model.named_parameters() if name in wanted]
    for name, parameter in chosen:
        if not parameter.is_floating_point():
            raise Unsuited(
                f"method: {method} cannot train {name}, which is stored as {parameter.dtype}; "
                "expected a model that is not quantized; load it unquantized or type --method.name lora"
            )
    attachment = claim(model, method, config)
    attachment.originals = _in_file({name: parameter.data for name, parameter in chosen})
    for _, parameter in chosen:
        parameter.data = parameter.data.to(torch.float32, copy=True)
        parameter.requires_grad_(True)


def _in_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors where they are small; else mapped from a file without a name, so that only reading takes memory.

    Those on a GPU stay there. Raises Mistake when the folder for temporary files is full.
    """
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size <= LARGE_MB * 1e6 or any(tensor.device.type != "cpu" for tensor in tensors.values()):
        return tensors
    storages = {str(t.untyped_storage().data_ptr()): t.untyped_storage() for t in tensors.values()}
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        file = Path(folder) / "originals.safetensors"
        with disk_mistakes(file, "set TMPDIR to a place with room"):
            save_file({place: torch.empty(0, dtype=torch.uint8).set_(whole) for place, whole in storages.items()}, file)
        mapped = load_file(file)
    found = {}
    for name, tensor in tensors.items():  # those that lay end to end in one storage do again: products count on it
        whole = mapped[str(tensor.untyped_storage().data_ptr())].view(tensor.dtype)
        start = whole.storage_offset() + tensor.storage_offset()
        found[name] = whole.as_strided(tensor.shape, tensor.stride(), start)
    return found


def trained_in_place(model: nn.Module, method: str) -> dict[str, Tensor]:
    """The tensors that `train_in_place` made trainable, by parameter name, without gradient."""
    originals = expect(model, method).originals
    return {name: parameter.detach() for name, parameter in model.named_parameters() if name in originals}


def trainable(model: nn.Module) -> Trainable:
    """Count and name what an optimizer would get."""
    parameters = dict(model.named_parameters())
    chosen = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    total = sum(parameter.numel() for parameter in parameters.values())
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "dequantized"):  # two weights may lie in a byte
            total += layer.in_features * layer.out_features - layer.weight.numel()
    return Trainable(sum(parameter.numel() for parameter in chosen.values()), total, tuple(chosen))


def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor], method: str) -> None:
    """Copy `given` into the live tensors `own`, name by name.

    Raises Mistake, before anything is changed, unless both have the same names and shapes.
    """
    refuse_unfit(own, given, method)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def refuse_unfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], method: str) -> None:
    """Raise Mistake unless `given` has the names and shapes of `own`: a weight that found no place trains nothing."""
    remedy = "load it on the base and with the settings it was made with"
    for name in given:
        if name not in own:
            raise Mistake(f"{method}: the weight {name} fits nowhere in this model ({nearest(name, own)}); {remedy}")
    for name, tensor in own.items():
        if name not in given:
            raise Mistake(f"{method}: the weights lack {name}; expected {len(own)}, got {len(given)}; {remedy}")
        if given[name].shape != tensor.shape:
            got, wanted = list(given[name].shape), list(tensor.shape)
            raise Mistake(f"{method}: the weight {name} has shape {got}; this model needs {wanted}; {remedy}")

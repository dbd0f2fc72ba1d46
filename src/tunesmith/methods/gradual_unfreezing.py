"""All weights are trained, the last layers first and the lower ones later and slower: what the model knows is kept.

ULMFiT (Howard & Ruder 2018, arXiv 1801.06146): gradual unfreezing (section 3.3), discriminative learning rates
(section 3.2, ``rate of a lower group = rate / 2.6``), and the slanted triangular schedule (eq. 3). The layers are cut
into `stages` groups, as that paper's model had four: in a model of thirty layers, a rate divided by 2.6 at each of
them would leave nothing for most. What stands over the layers learns with the top group, the embedding (and a head tied
to it) with the lowest.

The artifact is a whole model in transformers' format. Layers whose turn has not come get no gradient, and nothing below
the lowest that learns is computed backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from tunesmith.core.config import Section
from tunesmith.methods import _attachment, _blocks

FAMILY = "gradual"
GOOD_FOR = "all weights with less forgotten: texts far from what the model knows"
LEARNING_RATE = 5e-5
SCHEDULE = "slanted_triangular"
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = True

_NAME = "gradual_unfreezing"


class Config(Section):
    """The keys of ``method: {name: gradual_unfreezing}``."""

    stages: int = Field(4, ge=1, description="groups the layers are unfrozen in; at most one a layer")
    unfreeze_every: float = Field(
        0.1, gt=0, description="until the next group learns, too: share of the run (below 1), or steps"
    )
    decay: float = Field(2.6, ge=1, description="each lower group's learning rate is divided by this once more")


def attach(model: nn.Module, config: Config) -> None:
    """Make every parameter trainable, in float32. Raises Mistake for a quantized model, and one without layers."""
    _blocks.blocks(model)
    _attachment.train_in_place(model, _NAME, [name for name, _ in model.named_parameters()], config)


def detach(model: nn.Module) -> None:
    """Give the base its own tensors back, bit for bit."""
    _attachment.release(model, _NAME)


def merge(model: nn.Module) -> None:
    """Keep what was learned: it lies in the model's own weights already, in float32."""
    _attachment.release(model, _NAME, keep=True)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter by name; tied ones once."""
    return _attachment.trained_in_place(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The groups from the top down, the learning rate of each a `decay`-th of the one above."""
    decay = _config(model).decay
    return [{"params": group, "scale": decay**-depth} for depth, group in enumerate(_groups(model))]


def resting(model: nn.Module, step: int, steps: int) -> list[Tensor]:
    """The parameters of the groups whose turn has not come at optimizer step `step` (from 1) of `steps`."""
    every = _config(model).unfreeze_every
    wait = every if every >= 1 else max(1, round(every * steps))
    learning = 1 + int((step - 1) // wait)
    return [parameter for group in _groups(model)[learning:] for parameter in group]


def _config(model: nn.Module) -> Config:
    config: Config = _attachment.expect(model, _NAME).config
    return config


def _groups(model: nn.Module) -> list[list[Tensor]]:
    """The model's parameters in `stages` groups, the top one first."""
    (_, under), *parts, (_, over) = _blocks.parameters_by_block(model)
    count = min(_config(model).stages, len(parts))
    ends = [len(parts) * number // count for number in range(count + 1)]
    groups = [[name for _, names in parts[start:end] for name in names] for start, end in pairwise(ends)]
    groups[0] = under + groups[0]
    groups[-1] = groups[-1] + over
    return [[model.get_parameter(name) for name in group] for group in reversed(groups)]

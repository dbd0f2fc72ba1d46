"""New dense layers over a frozen body, trained by the loop; the body's states are computed once, epochs are free.

Called "finetuning I" where training all layers is "finetuning II". A row's hidden states are pooled to one vector,
which dense layers turn into scores of the task's labels; on encoders and decoders alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from tunesmith.core.config import Pooling, Section
from tunesmith.methods import _label_head

FAMILY = "feature-based"
GOOD_FOR = "labels of whole rows in seconds, and a little more than a line can tell apart"
LEARNING_RATE = 1e-3
MERGEABLE = False
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = False
HEAD = True

_NAME = "dense_head"


class Config(Section):
    """The keys of ``method: {name: dense_head}``."""

    layers: list[int] = Field([256], description="widths of the dense layers")
    pooling: Pooling = Field("mean", description="what stands for a row: mean, last or first token's states")
    layer: int = Field(-1, description="after which layer states are taken: from 1, or back from -1, the last, normed")


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put the dense layers beside it, for as many labels as its configuration says."""
    _label_head.attach(model, _NAME, config.layers, config.pooling, config.layer)


def detach(model: nn.Module) -> None:
    """Take the layers away: the model is as it was."""
    _label_head.detach(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The layers' weights, ``dense.0.weight`` … ``out.bias``."""
    return _label_head.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _label_head.restore(model, _NAME, weights)

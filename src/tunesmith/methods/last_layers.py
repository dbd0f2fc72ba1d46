"""Only the last layers are trained, in place: nothing below them needs a gradient, so a step costs a fraction.

The lower layers of a language model know the language, the upper ones the task (Howard & Ruder 2018, arXiv 1801.06146;
Lee et al. 2019, arXiv 1911.03090). What is learned lies in the model's own weights: inference costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _blocks

FAMILY = "selective"
GOOD_FOR = "quick steps on a processor: nothing below is computed backward"
LEARNING_RATE = 1e-4
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = False

_NAME = "last_layers"


class Config(Section):
    """The keys of ``method: {name: last_layers}``."""

    layers: int = Field(2, ge=1, description="how many layers are trained, counted from the output")
    norm: bool = Field(True, description="train the norms after the last layer, too")
    head: bool = Field(False, description="train the output head, too, where it is not the embedding (tied)")


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model but for its last layers and, as `config` says, what stands over them; those become float32.

    Raises Mistake for more layers than the model has, and for a head that is tied to the embedding.
    """
    _, *parts, (_, above) = _blocks.parameters_by_block(model)
    if config.layers > len(parts):
        raise Mistake(
            f"method.layers: got {config.layers}; expected at most {len(parts)}, as many as the model has; "
            "type --method.name full to train them all"
        )
    head = _head(model, above) if config.head else []
    names = [name for _, part in parts[-config.layers :] for name in part]
    norms = [name for name in above if name not in head and model.get_parameter(name).dim() == 1]
    _attachment.train_in_place(model, _NAME, [*names, *(norms if config.norm else []), *head])


def detach(model: nn.Module) -> None:
    """Give the base its own tensors back, bit for bit."""
    _attachment.release(model, _NAME)


def merge(model: nn.Module) -> None:
    """Keep what was learned: it lies in the model's own weights already, in float32."""
    _attachment.release(model, _NAME, keep=True)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name."""
    return _attachment.trained_in_place(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def _head(model: nn.Module, above: list[str]) -> list[str]:
    """The parameters over the blocks that are no norm's: the output head's, a classifier's."""
    matrices = {name.rpartition(".")[0] for name in above if model.get_parameter(name).dim() > 1}
    if not matrices:
        raise Mistake(
            "method.head: this model's output head is its input embedding (tied), which lies below all layers; "
            "type --method.head false, or --method.name full"
        )
    return [name for name in above if name.rpartition(".")[0] in matrices]

"""What an objective sees: by shape only, so that the engine's own classes fit without being imported."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Terms(Protocol):
    """What the model made of a batch."""

    @property
    def logprobs(self) -> Tensor:
        """`[targets]` float32, nats: the log-probability of each label token."""

    @property
    def correct(self) -> Tensor | None:
        """`[targets]` bool: whether the label was the most probable token; None when not computed."""


class Batch(Protocol):
    """What the data says of it."""

    @property
    def weights(self) -> Tensor:
        """`[targets]` float32: how much each target counts."""

"""How much memory a run will take, before it starts.

Counted, not tried: what the process holds already, the trained weights with their gradients and optimizer states, and
what a pack of tokens keeps for the backward pass. The coefficients count the tensors that the engine's layers save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from tunesmith.core.errors import Mistake
from tunesmith.engine.prepare import Prepared

MB = 1e6
OPTIMIZER_SLOTS = {"adamw": 2, "adam": 2, "sgd": 1}


class DoesNotFit(Mistake):
    """A run that needs more memory than it may take."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Peak memory of a training run in MB, and what it is made of."""

    held_mb: float
    trained_mb: float
    activations_mb: float
    logits_mb: float

    @property
    def total_mb(self) -> float:
        """The peak, in MB."""
        return self.held_mb + self.trained_mb + self.activations_mb + self.logits_mb

    def as_dict(self) -> dict[str, float]:
        """Rounded MB, for the receipt."""
        parts = {"held": self.held_mb, "trained": self.trained_mb, "activations": self.activations_mb}
        return {
            **{k: round(v) for k, v in parts.items()},
            "logits": round(self.logits_mb),
            "total": round(self.total_mb),
        }


def held_mb() -> float:
    """What this process holds now, in MB (resident)."""
    return float(psutil.Process().memory_info().rss) / MB


def estimate(
    prepared: Prepared, *, tokens: int, targets: int, longest: int, trainable: int, optimizer: str, copies: int = 2
) -> Estimate:
    """Peak memory of training on packs of `tokens` flat tokens with `targets` labels, rows of at most `longest` tokens.

    `trainable` numbers are trained in float32; `copies` counts the good states kept of them (the guard's and the best).
    """
    config: Any = prepared.model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    product = 2 if prepared.dtype.itemsize == 2 else 4
    # Float32 tensors a token and layer that backward needs: residual, norms, q k v and output (12 hidden), the gated
    # MLP (4 inner), and their adapters' inputs; attention keeps its probabilities at product precision.
    floats = 14 * hidden + 5 * inner
    attention = heads * min(longest, tokens) * product * 0.75
    activations = tokens * layers * (4 * floats + attention)
    slots = OPTIMIZER_SLOTS.get(optimizer, 2)
    trained = trainable * 4 * (1 + slots + copies * (1 + slots))
    logits = targets * config.vocab_size * 4 * 3
    return Estimate(held_mb(), trained / MB, activations / MB, logits / MB)


def fitting_tokens(
    prepared: Prepared,
    *,
    limit_mb: float,
    most: int,
    longest: int,
    targets_share: float,
    trainable: int,
    optimizer: str,
) -> int:
    """The largest pack (flat tokens, at most `most`) whose estimate stays below `limit_mb`.

    Raises DoesNotFit, saying what would fit, when not even the longest row alone does.
    """

    def total(tokens: int) -> float:
        targets = max(1, round(tokens * targets_share))
        return estimate(
            prepared, tokens=tokens, targets=targets, longest=longest, trainable=trainable, optimizer=optimizer
        ).total_mb

    tokens = most
    while tokens > longest and total(tokens) > limit_mb:
        tokens = max(longest, tokens * 3 // 4)
    if total(tokens) <= limit_mb:
        return tokens
    shorter = longest
    while shorter > 16 and total(shorter) > limit_mb:
        shorter //= 2
    fits = f"max_length {shorter} would fit" if shorter > 16 else "a method that trains fewer weights may fit"
    raise DoesNotFit(
        f"memory: training needs about {total(longest) / 1000:.1f} GB for a row of {longest} tokens; "
        f"the budget is {limit_mb / 1000:.1f} GB; {fits}, or raise --budget.memory_gb"
    )

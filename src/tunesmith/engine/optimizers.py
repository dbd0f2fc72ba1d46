"""Optimizers by name, and the shape of the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def make(
    name: str,
    parameters: Iterable[Tensor | Mapping[str, Any]],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """An optimizer over the parameters that train.

    ``adamw``: Loshchilov & Hutter 2019 (arXiv 1711.05101); ``adam``: Kingma & Ba 2015 (arXiv 1412.6980), weight decay
    as L2; ``sgd``: with momentum. Groups from a method's `param_groups` may carry `scale`, a factor on the learning
    rate. Weight decay is left off vectors (biases, norms).
    """
    groups: list[dict[str, Any]] = [
        dict(group) if isinstance(group, Mapping) else {"params": [group]} for group in parameters
    ]
    split: dict[tuple[float, bool], list[Tensor]] = {}
    for group in groups:
        for parameter in group["params"]:
            split.setdefault((float(group.get("scale", 1.0)), parameter.dim() > 1), []).append(parameter)
    prepared = [
        {
            "params": tensors,
            "scale": scale,
            "lr": learning_rate * scale,
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (scale, matrix), tensors in split.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(prepared, lr=learning_rate, momentum=momentum)
    kind: Any = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    made: torch.optim.Optimizer = kind(prepared, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
    return made


def factor(step: int, steps: int, *, warmup_ratio: float, shape: str) -> float:
    """What the peak learning rate is multiplied with at `step` (0-based) of `steps`.

    Rises linearly over the first `warmup_ratio` of the steps, then stays (``constant``), falls in a line to 0
    (``linear``) or along half a cosine to 0 (``cosine``). ``slanted_triangular`` has a rise of its own: in a line from
    a 32nd over the first tenth of the steps, whatever `warmup_ratio`, and back again (arXiv 1801.06146, eq. 3).
    """
    if shape == "slanted_triangular":
        cut = steps // 10
        share = step / cut if step < cut else 1 - (step - cut) / (steps - cut)
        return (1 + share * 31) / 32
    warmup = round(steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    through = (step - warmup) / max(1, steps - warmup)
    return {"constant": 1.0, "linear": 1.0 - through, "cosine": 0.5 * (1.0 + math.cos(math.pi * through))}[shape]

"""Log-probabilities of given texts: of candidate answers, of whole sequences, and how far two models lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine.forward import forward, target_logits
from tunesmith.engine.packing import packs
from tunesmith.engine.prepare import Prepared

MAX_TOKENS = 4096
"""Flat tokens in a pack when nothing is kept for a backward pass."""


@torch.inference_mode()
def sequence_logprobs(
    prepared: Prepared,
    rows: Sequence[Encoded],
    *,
    prefix: Sequence[int] = (),
    max_tokens: int = MAX_TOKENS,
    on_rows: Callable[[float], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of label log-probabilities (nats) and sum of weights of every row, each `[rows]`, float64."""
    sums = torch.zeros(len(rows), dtype=torch.float64)
    counts = torch.zeros(len(rows), dtype=torch.float64)
    for group, batch in packs(rows, max_tokens=max_tokens, prefix=prefix, share=prepared.shares):
        terms = forward(prepared, batch)
        owner = torch.tensor(group)[batch.row]
        sums.index_add_(0, owner, (terms.logprobs.cpu() * batch.weights).double())
        counts.index_add_(0, owner, batch.weights.double())
        if on_rows is not None:
            on_rows(len(group))
    return sums, counts


def candidate_logprobs(
    prepared: Prepared,
    prompts: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[Sequence[int]]],
    *,
    prefix: Sequence[int] = (),
    max_tokens: int = MAX_TOKENS,
    on_rows: Callable[[float], object] | None = None,
) -> Tensor:
    """Log-probability (nats) of each candidate continuation of each prompt, `[prompts, candidates]`, float64.

    `candidates[p]` are the token ids of prompt `p`'s candidates, as many for every prompt. The prompt is computed once
    for all its candidates, and what prompts have in common once for all of them.
    """
    rows = [
        Encoded((*prompt, *answer), (*([0.0] * len(prompt)), *([1.0] * len(answer))))
        for prompt, answers in zip(prompts, candidates, strict=True)
        for answer in answers
    ]
    width = len(candidates[0]) if candidates else 0
    # Rows are candidates here; the caller counts prompts.
    heard = None if on_rows is None else lambda n: on_rows(n / width)
    sums, _ = sequence_logprobs(prepared, rows, prefix=prefix, max_tokens=max_tokens, on_rows=heard)
    return sums.view(len(prompts), width)


@torch.inference_mode()
def distributions(
    prepared: Prepared, rows: Sequence[Encoded], *, prefix: Sequence[int] = (), max_tokens: int = 1024
) -> Tensor:
    """Log-probabilities of the whole vocabulary at every labelled position, `[targets, vocabulary]`, in half precision.

    In the order of rows and of positions in them. Half precision keeps log-probabilities of likely tokens to 0.001
    nats; the unlikely ones, where it is coarser, hardly weigh in a divergence.
    """
    pieces: dict[tuple[int, int], Tensor] = {}
    for group, batch in packs(rows, max_tokens=max_tokens, prefix=prefix, share=prepared.shares):
        batch = batch.to(prepared.device)
        shares = torch.log_softmax(target_logits(prepared, batch), dim=-1).half().cpu()
        seen: dict[int, int] = {}
        for row, one in zip(batch.row.tolist(), shares, strict=True):
            pieces[group[row], seen.get(row, 0)] = one
            seen[row] = seen.get(row, 0) + 1
    return torch.stack([pieces[key] for key in sorted(pieces)])


def divergence(base: Tensor, tuned: Tensor, *, block: int = 128) -> Tensor:
    """KL(base ‖ tuned) in nats at every position, `[targets]` float32, from `distributions` of both; never below 0.

    What half precision rounded off is made up for first, so that both sum to one.
    """
    pieces = []
    for start in range(0, len(base), block):
        p, q = (side[start : start + block].float().log_softmax(-1) for side in (base, tuned))
        pieces.append((p.exp() * (p - q)).sum(-1).clamp(min=0.0))
    return torch.cat(pieces)

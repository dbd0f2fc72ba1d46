"""Generation in batches: prompts read in one packed pass, then a token a row a step, rows leaving as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine.cache import Cache
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack, plan
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.tiles import Context

ROWS_AT_ONCE = 32
"""Rows decoded together: a step reads every weight once whatever their number, so more rows cost little."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: greedily at `temperature` 0, else from the likeliest tokens of mass `top_p`."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """New tokens of one row, the end token left out; `finished` is False when `max_new_tokens` cut it off."""

    ids: tuple[int, ...]
    finished: bool


@torch.inference_mode()
def generate(
    prepared: Prepared,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    prefix: Sequence[int] = (),
    sampling: Sampling = Sampling(),
    max_tokens: int = 8192,
    on_tokens: Callable[[dict[int, int], list[int]], object] | None = None,
) -> list[Generated]:
    """Continue every prompt until an end token or `max_new_tokens`; returns one result a prompt, in order.

    `prefix` are virtual tokens before every prompt. `on_tokens(new, finished)` hears of each step: the new
    token of each row that got one, and the rows that are done.
    Greedy results do not depend on how rows are put together, up to rounding.
    """
    rows = [Encoded((*prompt, 0), (*([0.0] * len(prompt)), 1.0)) for prompt in prompts]
    results: list[Generated | None] = [None] * len(rows)
    generator = torch.Generator().manual_seed(sampling.seed)
    for group in _groups(rows, max_tokens, len(prefix)):
        batch = pack([rows[i] for i in group], prefix=prefix).to(prepared.device)
        lengths = torch.tensor([len(prefix) + len(prompts[i]) for i in group], device=prepared.device)
        cache = Cache(batch.ways, lengths)
        order = torch.argsort(batch.row)
        scores = logits(prepared, batch, batch.index[order], cache)
        cache.decoding = True
        made: list[list[int]] = [[] for _ in group]
        live = list(range(len(group)))
        for _ in range(max_new_tokens):
            chosen = _choose(scores, sampling, generator)
            ended = [token in end_ids for token in chosen.tolist()]
            for row, token, end in zip(live, chosen.tolist(), ended, strict=True):
                if end:
                    results[group[row]] = Generated(tuple(made[row]), True)
                else:
                    made[row].append(token)
            if on_tokens is not None:
                new = zip(live, chosen.tolist(), ended, strict=True)
                done = [
                    group[row] for row, end in zip(live, ended, strict=True) if end or len(made[row]) == max_new_tokens
                ]
                on_tokens({group[row]: token for row, token, end in new if not end}, done)
            if any(ended):
                stay = [place for place, end in enumerate(ended) if not end]
                live = [live[place] for place in stay]
                kept = torch.tensor(stay, dtype=torch.long, device=prepared.device)
                cache.keep(kept)
                chosen = chosen[kept]
            if not live or len(made[live[0]]) == max_new_tokens:
                break
            scores = _decode(prepared, chosen, cache)
        for row in live:
            results[group[row]] = Generated(tuple(made[row]), False)
    return [result for result in results if result is not None]


def _groups(rows: Sequence[Encoded], max_tokens: int, prefix_length: int) -> list[list[int]]:
    """Rows that are decoded together: alike in their beginnings, at most ROWS_AT_ONCE."""
    return [
        group[at : at + ROWS_AT_ONCE]
        for group in plan(rows, max_tokens=max_tokens, prefix_length=prefix_length)
        for at in range(0, len(group), ROWS_AT_ONCE)
    ]


def _decode(prepared: Prepared, tokens: Tensor, cache: Cache) -> Tensor:
    """Feed one token a row; returns the logits of the next, `[rows, vocabulary]`."""
    cache.make_room()
    output = prepared.model(
        input_ids=tokens.unsqueeze(0),
        position_ids=cache.lengths.unsqueeze(0),
        use_cache=False,
        packed=Context((), len(tokens), prepared.dtype, prepared.device, cache),
    )
    cache.lengths = cache.lengths + 1
    scores: Tensor = output.logits[0].float()
    return scores


def _choose(scores: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token a row. Nucleus sampling: Holtzman et al. 2020 (arXiv 1904.09751)."""
    if sampling.temperature == 0.0:
        return scores.argmax(-1)
    shares = torch.softmax(scores / sampling.temperature, dim=-1).cpu()
    if sampling.top_p < 1.0:
        ordered, places = shares.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
        shares = torch.zeros_like(shares).scatter_(-1, places, ordered)
    return torch.multinomial(shares, 1, generator=generator).squeeze(1).to(scores.device)

"""Generation in batches: prompts read in one packed pass, then a token a row a step, rows leaving as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine import text_to_text
from tunesmith.engine.cache import Cache
from tunesmith.engine.decoding import Decoder, decoder_of
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack, plan
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.tiles import Context

ROWS_AT_ONCE = 32
"""Rows decoded together: a step reads every weight once whatever their number, so more rows cost little."""


FEWER = (1, 2, 4, 8, 16, 24, 32)
"""Numbers of rows that a batch shrinks to as rows finish."""


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
    results = [Generated((), False)] * len(rows)
    generator = torch.Generator().manual_seed(sampling.seed)
    decoder = decoder_of(prepared)
    for group in _groups(rows, max_tokens, len(prefix), prepared.shares):
        reading: _Reading | text_to_text.Reading
        if prepared.kind == "encoder-decoder":
            reading = text_to_text.Reading(prepared, [(*prefix, *prompts[i]) for i in group])
        else:
            reading = _Reading(prepared, decoder, [rows[i] for i in group], prefix)
        scores = reading.scores
        made: dict[int, list[int]] = {i: [] for i in group}
        slots: list[int | None] = list(group)  # whose tokens each row of the cache makes; None where it is done
        for _ in range(max_new_tokens):
            chosen = _choose(scores, sampling, generator)
            new: dict[int, int] = {}
            done: list[int] = []
            for place, (i, token) in enumerate(zip(slots, chosen.tolist(), strict=True)):
                if i is None:
                    continue
                if token in end_ids:
                    results[i], slots[place] = Generated(tuple(made[i]), True), None
                    done.append(i)
                    continue
                new[i] = token
                made[i].append(token)
                if len(made[i]) == max_new_tokens:
                    results[i], slots[place] = Generated(tuple(made[i]), False), None
                    done.append(i)
            if on_tokens is not None:
                on_tokens(new, done)
            stay = _staying(slots)
            if not stay:
                break
            if len(stay) < len(slots):
                slots, kept = [slots[place] for place in stay], torch.tensor(stay, device=prepared.device)
                reading.keep(kept)
                chosen = chosen[kept]
            scores = reading.step(chosen)
    return results


class _Reading:
    """Prompts read in one packed pass, and what follows them; `scores` are the logits of each row's first new token."""

    def __init__(
        self, prepared: Prepared, decoder: Decoder | None, rows: Sequence[Encoded], prefix: Sequence[int]
    ) -> None:
        self._prepared, self._decoder = prepared, decoder
        batch = pack(rows, prefix=prefix).to(prepared.device)
        lengths = torch.tensor([len(prefix) + len(row.ids) - 1 for row in rows], device=prepared.device)
        self._cache = Cache(batch.ways, lengths)
        self.scores = logits(prepared, batch, batch.index[torch.argsort(batch.row)], self._cache)
        self._cache.decoding = True
        self.keep = self._cache.keep

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token a row; returns the logits of the next, `[rows, vocabulary]`."""
        cache = self._cache
        cache.make_room()
        scores = self._decoder(tokens, cache) if self._decoder is not None else self._decode(tokens)
        cache.lengths = cache.lengths + 1
        return scores

    def _decode(self, tokens: Tensor) -> Tensor:
        """`Decoder` for models whose layers are not all ours: through transformers' own."""
        prepared, cache = self._prepared, self._cache
        output = prepared.model(
            input_ids=tokens.unsqueeze(0),
            position_ids=cache.lengths.unsqueeze(0),
            use_cache=False,
            packed=Context((), len(tokens), prepared.dtype, prepared.device, cache),
        )
        scores: Tensor = output.logits[0].float()
        return scores


def _groups(rows: Sequence[Encoded], max_tokens: int, prefix_length: int, share: bool) -> list[list[int]]:
    """Rows that are decoded together: alike in their beginnings, at most ROWS_AT_ONCE."""
    return [
        group[at : at + ROWS_AT_ONCE]
        for group in plan(rows, max_tokens=max_tokens, prefix_length=prefix_length, share=share)
        for at in range(0, len(group), ROWS_AT_ONCE)
    ]


def _staying(slots: Sequence[int | None]) -> list[int]:
    """The slots to go on with: those alive, filled up with done ones to a number seen before (see `engine.tiles`)."""
    alive = [place for place, row in enumerate(slots) if row is not None]
    wanted = next((size for size in FEWER if size >= len(alive)), len(slots))
    spare = [place for place, row in enumerate(slots) if row is None][: max(0, wanted - len(alive))]
    return sorted((*alive, *spare)) if alive else []


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

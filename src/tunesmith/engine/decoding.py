"""A decoding step through our own layers, in as few operations as it takes.

A step of a few rows reads every weight once and computes next to nothing, so its time is that of reading, and of
calling: what does not change from step to step (which products there are, their adapters side by side) is found once,
when the decoder is made. The same arithmetic as `engine.layer`'s, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tunesmith.engine import elementwise
from tunesmith.engine.attention import decode
from tunesmith.engine.cache import Cache
from tunesmith.engine.layer import window_of
from tunesmith.engine.norms import normed
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.products import Fixed, fixed, is_silu
from tunesmith.engine.tiles import Context


@dataclass(frozen=True, slots=True)
class _Layer:
    own: Any
    joined: Fixed
    out: Fixed
    pair: Fixed
    down: Fixed


class Decoder:
    """The next token's logits of every row, `decoder(tokens, cache)`; see `decoder_of`."""

    def __init__(self, prepared: Prepared, layers: list[_Layer], head: Fixed) -> None:
        self.prepared, self.layers, self.head = prepared, layers, head
        self.embed, self.rotary = prepared.model.get_input_embeddings(), prepared.model.model.rotary_emb

    def __call__(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Feed one token a row, `tokens [rows]`; returns logits `[rows, vocabulary]`, float32.

        The cache has room already (`make_room`); its lengths are the caller's to count on.
        """
        x = self.embed(tokens).float()
        cos, sin = self.rotary(x.unsqueeze(0), cache.lengths.unsqueeze(0))
        turn = cos[0].float(), sin[0].float()
        context = Context((), len(tokens), self.prepared.dtype, self.prepared.device, cache)
        for layer in self.layers:
            x = self._through(x, layer, turn, context, cache)
        return self.head(normed(x, self.prepared.model.model.norm, self.prepared.dtype))

    def _through(self, x: Tensor, layer: _Layer, turn: tuple[Tensor, Tensor], context: Context, cache: Cache) -> Tensor:
        own, dtype = layer.own, self.prepared.dtype
        seen = own.self_attn
        size, rows = seen.head_dim, len(x)
        joined = layer.joined(normed(x, own.input_layernorm, dtype)).view(rows, -1, size)
        groups = joined.shape[1] // (seen.num_key_value_groups + 2)
        heads = groups * seen.num_key_value_groups
        if hasattr(seen, "q_norm"):
            queries, keys, values = torch.split(joined, [heads, groups, groups], dim=1)
            joined = torch.cat([seen.q_norm(queries), seen.k_norm(keys), values], dim=1)
        joined = elementwise.turn(joined.flatten(1), *turn, heads + groups, dtype).view(joined.shape)
        looked = decode(joined, heads, context, cache, seen.layer_idx, seen.scaling, window_of(seen))
        x = layer.out(looked.view(rows, -1), residual=x)
        both, delta = layer.pair.parts(normed(x, own.post_attention_layernorm, dtype))
        if layer.pair.bias is not None:
            both, delta = elementwise.total(both, delta, bias=layer.pair.bias).to(dtype), None
        return layer.down(elementwise.gated(both, delta), residual=x)


def decoder_of(prepared: Prepared) -> Decoder | None:
    """A decoder for the model with whatever is attached to it now; None where a layer is not one of ours.

    Good for as long as nothing of the model changes.
    """
    if not prepared.ours:
        return None
    layers, made = [], partial(fixed, prepared.eighths)
    for own in prepared.model.model.layers:
        seen, mlp = own.self_attn, own.mlp
        found = [
            made(seen.q_proj, seen.k_proj, seen.v_proj),
            made(seen.o_proj),
            made(mlp.gate_proj, mlp.up_proj),
            made(mlp.down_proj),
        ]
        if not is_silu(mlp.act_fn):
            return None
        layers.append((own, *found))
    head = made(prepared.head)
    if head is None or any(part is None for layer in layers for part in layer):
        return None
    return Decoder(prepared, [_Layer(*layer) for layer in layers], head)

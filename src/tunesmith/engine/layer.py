"""The decoder layer of the Llama family, made of few large steps that keep only what their backward passes need.

``x + attention(norm(x))``, then ``x + mlp(norm(x))``: the form that Llama, Mistral, Qwen 2 and Qwen 3 have in common
(SmolLM, TinyLlama, Yi and many others are of these types). Ours takes the place of transformers' own with the very same
children and parameters, so methods, saving and names know no difference. Any other model runs with its own layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith.engine import elementwise
from tunesmith.engine.attention import attention
from tunesmith.engine.products import join, mlp, onto, parallel
from tunesmith.engine.tiles import Context, expected

FAMILY = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})


class DecoderLayer(nn.Module):
    """A layer over packed tokens; `packed.keep`, in the last layer, narrows what comes after attention to those."""

    self_attn: Any
    mlp: Any
    last: bool

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        packed: Context | None = None,
        **_: Any,
    ) -> Tensor:
        """Map `hidden_states [1, tokens, hidden]` to the same, `[1, kept tokens, hidden]` in a narrowed last layer."""
        packed = expected(packed)
        turn = position_embeddings[0][0].float(), position_embeddings[1][0].float()
        if packed.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._through, hidden_states[0], turn, packed, use_reentrant=False)
        else:
            out = self._through(hidden_states[0], turn, packed)
        return out.unsqueeze(0)

    def _through(self, x: Tensor, turn: tuple[Tensor, Tensor], packed: Context) -> Tensor:
        looked = self._attend(x, turn, packed)
        if self.last and packed.keep is not None:
            x, looked = x[packed.keep], looked[packed.keep]
        x = onto(x, looked, self.self_attn.o_proj)
        return mlp(x, self.post_attention_layernorm, packed.dtype, self.mlp)

    def _attend(self, x: Tensor, turn: tuple[Tensor, Tensor], packed: Context) -> Tensor:
        own, size = self.self_attn, self.self_attn.head_dim
        joined = parallel(x, self.input_layernorm, packed.dtype, own.q_proj, own.k_proj, own.v_proj)
        groups = joined.shape[1] // size // (own.num_key_value_groups + 2)
        heads = groups * own.num_key_value_groups
        if hasattr(own, "q_norm"):
            queries, keys, values = torch.split(joined.view(len(x), -1, size), [heads, groups, groups], dim=1)
            joined = torch.cat([own.q_norm(queries), own.k_norm(keys), values], dim=1).flatten(1)
        if torch.is_grad_enabled():
            joined = _Rotary.apply(joined, *turn, heads + groups, packed.dtype)  # type: ignore[no-untyped-call]  # of torch
        else:
            joined = elementwise.turn(joined, *turn, heads + groups, packed.dtype)
        out = attention(
            joined.view(len(x), -1, size),
            heads,
            packed,
            layer=own.layer_idx,
            scale=own.scaling,
            window=window_of(own),
            dropout=own.attention_dropout if self.training else 0.0,
        )
        return out.flatten(1).to(packed.dtype)


def substitute(model: nn.Module) -> bool:
    """Put ours in the place of every layer of the family; says whether all of the model's layers are ours now."""
    layers: Any = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return False
    for place, layer in enumerate(layers):
        if type(layer).__name__ in FAMILY:
            ours = DecoderLayer.__new__(DecoderLayer)
            ours.__dict__.update(layer.__dict__)
            layers[place] = ours
    if not all(isinstance(layer, DecoderLayer) for layer in layers):
        return False
    own: Any
    for place, own in enumerate(layers):
        own.last = place == len(layers) - 1
        join([own.self_attn.q_proj, own.self_attn.k_proj, own.self_attn.v_proj])
        join([own.mlp.gate_proj, own.mlp.up_proj])
    return True


def window_of(own: Any) -> int | None:
    """How far a query sees back: Qwen says it layer by layer, Mistral for the whole model, Llama has none."""
    if hasattr(own, "sliding_window"):
        found: int | None = own.sliding_window
        return found
    return getattr(own.config, "sliding_window", None)


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor, cos: Tensor, sin: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.rest = heads, dtype
        return elementwise.turn(joined, cos, sin, heads, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return elementwise.turn(grad, *ctx.saved_tensors, *ctx.rest, back=True), None, None, None, None

"""Which linear layers of a block do what, by the names that families of models give them."""

from __future__ import annotations

import re

from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _targets

KEYS_AND_VALUES = re.compile(
    r".*\b(k_proj|v_proj|key|value|key_proj|value_proj|k_lin|v_lin|(Self|EncDec)Attention\.[kv]"
    r"|c_attn|qkv_proj|query_key_value|Wqkv)"
)
"""Projections to keys and to values; where a family makes queries, keys and values in one, that one."""

ATTENTION_OUTPUT = re.compile(r".*(attn|[aA]ttention)\.(o_proj|out_proj|c_proj|dense|output\.dense|Wo|o|out_lin)")
"""The projection of what attention found back to the width of the model."""

FEEDFORWARD_OUTPUT = re.compile(
    r".*\b(down_proj|mlp\.c_proj|fc2|dense_4h_to_h|(?<!attention\.)output\.dense|mlp\.Wo|DenseReluDense\.wo|lin2)"
)
"""The projection of the feed-forward layer's inner activations back to the width of the model."""


def find(model: nn.Module, part: re.Pattern[str], what: str) -> dict[str, nn.Module]:
    """The linear layers of a part of every block, by path; raises Mistake, calling the part `what`, when none is."""
    found: dict[str, nn.Module] = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, _targets.LINEAR) and part.fullmatch(path)
    }
    if not found:
        raise Mistake(
            f"this model ({type(model).__name__}) has no {what} under a name known here; expected a family such as "
            "Llama, Qwen, Gemma, Mistral, Phi, GPT-2, BERT or T5; type --method.name lora"
        )
    return found

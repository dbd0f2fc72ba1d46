"""What soft prompts have in common: virtual tokens as ids behind the embedding's own, and how PEFT writes them down."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _peft_settings

KEY = "prompt_embeddings"
"""The one weight of a soft prompt in PEFT's file."""
_UNDERSTOOD = frozenset(
    {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
)


def ids(base: nn.Embedding, count: int) -> tuple[int, ...]:
    """The ids of `count` virtual tokens, counted on from the rows of the embedding they are laid on."""
    return tuple(range(base.num_embeddings, base.num_embeddings + count))


def settings_for(model: nn.Module, tokens: int, width: int) -> dict[str, Any]:
    """What `adapter_config.json` says of any soft prompt: its `tokens` vectors of `width` numbers, and its model."""
    shape: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]  # of transformers' models
    return {
        "num_virtual_tokens": tokens,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": shape.num_attention_heads,
        "num_layers": shape.num_hidden_layers,
    }


def check(settings: Mapping[str, Any], names: Collection[str], method: str, own: Collection[str]) -> None:
    """Raise Mistake unless `method` can take what PEFT wrote: its `settings`, and weights called `names`.

    `own` are settings of that one method, beside those that all soft prompts have.
    """
    _peft_settings.refuse_unknown(settings, {*_UNDERSTOOD, *own}, method)
    if settings.get("num_transformer_submodules") not in (None, 1):
        raise Mistake(f"{method}: num_transformer_submodules is not 1; expected the soft prompt of a causal model")
    if KEY not in names:
        raise Mistake(f"{method}: the adapter's file holds no {KEY}; expected a soft prompt of peft")

"""A few trained vectors before every input; the model itself stays as it is, so one model serves any number of them.

Prompt tuning (arXiv 2104.08691). The vectors are virtual tokens: ids counted on from the embedding's last row, which
the embedding looks up in a parameter of its own. Positions count through them from 0, as in PEFT. Small models gain
less than large ones (fig. 1 there). In a text-to-text model they stand before the encoder's source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _soft_prompt

FAMILY = "additive"
GOOD_FOR = "large models and many tasks: a few kilobytes a task, weights untouched"
LEARNING_RATE = 1e-2
MERGEABLE = False
MIXABLE = True
PEFT_TYPE: str | None = "PROMPT_TUNING"
WHOLE = False

_NAME = "prompt_tuning"
_COMMON_TOKENS = 5000
_SAMPLED_ROWS = 1024


class Config(Section):
    """The keys of ``method: {name: prompt_tuning}``."""

    num_virtual_tokens: int = Field(20, ge=1, le=1000, description="how many vectors are learned; 20 to 100 is usual")
    init: Literal["text", "vocabulary", "random"] = Field(
        "text", description="start from init_text, from common tokens drawn at random, or from noise"
    )
    init_text: str = Field("", description="the text to start from; default: the task's instruction")
    init_ids: tuple[int, ...] = Field((), description="the token ids to start from; default: those of init_text")


class VirtualTokens(nn.Module):
    """An embedding `base` of V rows with `virtual [tokens, hidden]`, a float32 parameter, laid on as ids V, V + 1, …

    The rows of `virtual` are what the base would return, after any scaling it does by itself (Gemma).
    """

    def __init__(self, base: nn.Embedding, virtual: Tensor) -> None:
        super().__init__()
        self.base = base
        self.virtual = nn.Parameter(virtual)

    @property
    def weight(self) -> Tensor:
        """The base's rows: what a tied output head shares and transformers looks for."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Map `ids [...]` to `[..., hidden]`, in the type the base returns."""
        return look_up(self.base, self.virtual, ids)


def look_up(base: nn.Embedding, virtual: Tensor, ids: Tensor) -> Tensor:
    """The rows of `base` for its own ids and those of `virtual [tokens, hidden]` for the ids behind them."""
    rows = base.num_embeddings
    real = ids < rows
    embedded: Tensor = base(ids.where(real, 0))
    laid = functional.embedding((ids - rows).clamp(min=0), virtual)
    return torch.where(real.unsqueeze(-1), embedded, laid.to(embedded.dtype))


def resolve(config: Config, tokenizer: Any, instruction: str) -> Config:
    """Fill in what only the task and the tokenizer know: the text to start from and its token ids."""
    if config.init != "text" or config.init_ids:
        return config
    text = config.init_text or instruction
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return config.model_copy(update={"init_text": text, "init_ids": tuple(int(token) for token in ids)})


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and lay the virtual tokens on its input embedding; a tied output head keeps its own rows.

    Raises Mistake when ``init: text`` has no tokens to start from (see `resolve`), or some the model does not have.
    """
    base = _embedding(model)
    virtual = start(base, config)
    _attachment.claim(model, _NAME)
    reader(model).set_input_embeddings(VirtualTokens(base, virtual))


def detach(model: nn.Module) -> None:
    """Take the virtual tokens away: the base's own embedding is back."""
    _attachment.expect(model, _NAME)
    reader(model).set_input_embeddings(_layer(model).base)
    _attachment.release(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The vectors `[num_virtual_tokens, hidden]` under PEFT's name, ``prompt_embeddings``."""
    return {_soft_prompt.KEY: _layer(model).virtual.detach()}


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def prefix_tokens(model: nn.Module) -> tuple[int, ...]:
    """The ids of the virtual tokens; every batch puts them before every sequence."""
    layer = _layer(model)
    return _soft_prompt.ids(layer.base, len(layer.virtual))


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`.

    PEFT's init is given as RANDOM whatever ours was: TEXT would have peft look for a tokenizer first.
    """
    tokens, width = _layer(model).virtual.shape
    return {**_soft_prompt.settings_for(model, tokens, width), "prompt_tuning_init": "RANDOM"}


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for a soft prompt that PEFT wrote. Raises Mistake for what is not understood here."""
    _soft_prompt.check(settings, names, _NAME, _OWN)
    return Config(num_virtual_tokens=settings["num_virtual_tokens"], init="vocabulary")


_OWN = ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs")


def _embedding(model: nn.Module) -> nn.Embedding:
    base = reader(model).get_input_embeddings()
    if isinstance(base, VirtualTokens):
        base = base.base
    assert isinstance(base, nn.Embedding), f"an input embedding of type {type(base).__name__}"
    return base


def reader(model: Any) -> Any:
    """The part of a model that reads its input: a text-to-text model's encoder, whose decoder has its own embedding."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _layer(model: nn.Module) -> VirtualTokens:
    _attachment.expect(model, _NAME)
    layer = reader(model).get_input_embeddings()
    assert isinstance(layer, VirtualTokens)
    return layer


def start(base: nn.Embedding, config: Config) -> Tensor:
    """The first vectors `[num_virtual_tokens, hidden]`, float32: rows of the embedding, or noise of the rows' size.

    Raises Mistake when ``init: text`` has no tokens to start from (see `resolve`), or some the model does not have.
    """
    count, rows = config.num_virtual_tokens, base.num_embeddings
    if config.init == "random":
        sample = _rows(base, torch.linspace(0, rows - 1, min(rows, _SAMPLED_ROWS)).long())
        return torch.randn(count, sample.shape[-1]).to(sample.device) * sample.std()
    return _rows(base, starting_ids(config, rows))


def starting_ids(config: Config, rows: int) -> Tensor:
    """Ids `[num_virtual_tokens]` to start from: the text, repeated or cut to length, or common tokens drawn at random.

    Raises Mistake when ``init: text`` has no tokens to start from, or some that are not among the model's `rows`.
    """
    count = config.num_virtual_tokens
    if config.init == "vocabulary":
        # Byte-pair vocabularies are ordered by how common a token is; the paper draws from the 5,000 most common.
        return torch.randint(0, min(rows, _COMMON_TOKENS), (count,))
    if not config.init_ids:
        raise Mistake(
            "method: init: text has no text to start from; give method.init_text or a task with an "
            "instruction, or type --method.init vocabulary"
        )
    if not 0 <= min(config.init_ids) <= max(config.init_ids) < rows:
        got = f"{min(config.init_ids)} to {max(config.init_ids)}"
        raise Mistake(f"method.init_ids: got {got}; expected ids of this model's tokens, 0 to {rows - 1}")
    return torch.tensor(config.init_ids).repeat(-(-count // len(config.init_ids)))[:count]


def _rows(base: nn.Embedding, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = base(ids.to(base.weight.device)).float().clone()
    return found

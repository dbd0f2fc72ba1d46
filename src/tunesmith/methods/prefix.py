"""Learned keys and values before every input, in every layer: more say than a soft prompt, the model stays as it is.

Prefix tuning (arXiv 2101.00190, section 4): attention sees ``[P_k; K]`` and ``[P_v; V]``. They belong to virtual
tokens, whose ids count on from the embedding's last row; where such a token stands, what its projections give is
replaced. What is kept are keys as attention sees them, turned by their positions, which is PEFT's format; so they are
turned back before the model turns them again. A run starts from the keys and values the model itself has for a text
(section 7.4 there), which `begin` reads.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _soft_prompt, _targets, prompt_tuning
from tunesmith.methods._beginning import Beginning
from tunesmith.methods.prompt_tuning import resolve as resolve

FAMILY = "additive"
GOOD_FOR = "generation with weights untouched: more say than prompt_tuning, about 1 MB a task"
LEARNING_RATE = 2e-2
MERGEABLE = False
MIXABLE = True
PEFT_TYPE: str | None = "PREFIX_TUNING"
WHOLE = False

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2"})
"""Kinds of models (`model_type`) whose attention was looked through: keys and values can be replaced exactly."""

_NAME = "prefix"
_FUSED = ("qkv_proj", "c_attn")
_NOISE = 0.02


class Config(prompt_tuning.Config):
    """The keys of ``method: {name: prefix}``: those of prompt_tuning."""


class VirtualIds(nn.Module):
    """An embedding `base` of V rows that remembers where ids V, V + 1, … stood; they go through the model as id 0.

    No real token sees what that makes of them; the last one predicts a row's first token, should that be trained.
    `prompt_embeddings [tokens, layers · 2 · width]` is the float32 parameter: for each layer keys, then values, as PEFT
    lays them. `back [tokens, size, size]` undoes the turn of a key's position; None where positions do not turn keys.
    """

    back: Tensor | None

    def __init__(self, base: nn.Embedding, start: Tensor, layers: int, back: Tensor | None) -> None:
        super().__init__()
        self.base = base
        self.prompt_embeddings = nn.Parameter(start)
        self.layers = layers
        self.register_buffer("back", back, persistent=False)
        self.shape = torch.Size()
        self.places = self.which = torch.empty(0, dtype=torch.long)

    @property
    def weight(self) -> Tensor:
        """The base's rows: what a tied output head shares and transformers looks for."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Map `ids [...]` to `[..., hidden]`, in the type the base returns."""
        rows = self.base.num_embeddings
        self.shape, flat = ids.shape, ids.flatten()
        self.places = (flat >= rows).nonzero().squeeze(1)
        self.which = flat[self.places] - rows
        embedded: Tensor = self.base(ids.where(ids < rows, 0))
        return embedded

    def keys(self, layer: int) -> Tensor:
        """Keys of a layer before their positions turn them, `[tokens, width]`."""
        turned = self._learned(layer, 0)
        if self.back is None:
            return turned
        heads = turned.view(len(turned), -1, self.back.shape[-1])
        return torch.bmm(heads, self.back).flatten(1)

    def values(self, layer: int) -> Tensor:
        """Values of a layer, `[tokens, width]`."""
        return self._learned(layer, 1)

    def _learned(self, layer: int, side: int) -> Tensor:
        return self.prompt_embeddings.view(len(self.prompt_embeddings), self.layers, 2, -1)[:, layer, side]


class Replaced(nn.Module):
    """A layer `base` that makes keys, values or both (`sides`) of layer number `layer`: learned where a virtual id is.

    Where it makes queries, keys and values in one, they are its last columns.
    """

    def __init__(self, base: nn.Module, virtual: VirtualIds, layer: int, sides: Sequence[str]) -> None:
        super().__init__()
        self.base = base
        self.layer = layer
        self.sides = tuple(sides)
        self._virtual = (virtual,)  # in a tuple, since it is no part of this layer

    @property
    def weight(self) -> Tensor:
        """The base's weight: transformers' code here and there asks a linear layer for its type."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]  # nn.Module types every attribute Tensor | Module
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to what `base` gives. Raises RuntimeError when the model was given embeddings, not ids."""
        output: Tensor = self.base(x)
        (virtual,) = self._virtual
        if not len(virtual.places):
            return output
        count = virtual.shape.numel()
        if output.shape[: len(virtual.shape)] != virtual.shape and len(output) != count:
            raise RuntimeError(
                f"prefix: got {list(output.shape)} for ids {list(virtual.shape)}; call it with input_ids"
            )
        flat = output.reshape(count, -1)
        learned = torch.cat([getattr(virtual, side)(self.layer) for side in self.sides], dim=1)
        new = learned[virtual.which].to(output.dtype)
        untouched = flat[virtual.places, : flat.shape[1] - new.shape[1]]
        return flat.index_copy(0, virtual.places, torch.cat([untouched, new], dim=1)).view(output.shape)


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model, lay virtual ids on its embedding and put a `Replaced` around what makes keys and values.

    The prefix starts as noise; `begin` gives it a better start. Raises Mistake for a model where it cannot be exact.
    """
    _attachment.refuse_stacking(model, _NAME)
    base = model.get_input_embeddings()  # type: ignore[operator]  # of transformers' models
    shape: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]  # of transformers' models
    _refuse_inexact(shape)
    heads, size = _heads(shape)
    # Drawn on the CPU, so that a seed means the same start on every device.
    start = _NOISE * torch.randn(config.num_virtual_tokens, shape.num_hidden_layers * 2 * heads * size)
    back = _turned_back(model, config.num_virtual_tokens, size)
    _attachment.claim(model, _NAME)
    virtual = VirtualIds(base, start, shape.num_hidden_layers, back).to(base.weight.device)
    model.set_input_embeddings(virtual)  # type: ignore[operator]  # of transformers' models
    for path, layer, sides in list(_makers(model)):
        _targets.replace(model, path, Replaced(model.get_submodule(path), virtual, layer, sides))


def begin(model: nn.Module, config: Config, given: Beginning) -> None:
    """Start from a text (or common tokens) instead of noise: the prefix then says what the text would have said.

    Raises Mistake when ``init: text`` has no tokens to start from (see `resolve`), or some the model lacks.
    """
    layer = _layer(model)
    if config.init != "random":
        ids = prompt_tuning.starting_ids(config, layer.base.num_embeddings)
        with torch.no_grad():
            layer.prompt_embeddings.copy_(given.keys_and_values(ids.tolist()).flatten(1))


def detach(model: nn.Module) -> None:
    """Take the prefix away: the base's own modules are back in their places."""
    _attachment.expect(model, _NAME)
    model.set_input_embeddings(_layer(model).base)  # type: ignore[operator]  # of transformers' models
    replaced = [(path, module) for path, module in model.named_modules() if isinstance(module, Replaced)]
    for path, module in replaced:
        _targets.replace(model, path, module.base)
    _attachment.release(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Keys and values `[num_virtual_tokens, layers · 2 · width]` under PEFT's name, ``prompt_embeddings``."""
    return {_soft_prompt.KEY: _layer(model).prompt_embeddings.detach()}


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def prefix_tokens(model: nn.Module) -> tuple[int, ...]:
    """The ids of the virtual tokens; every batch puts them before every sequence."""
    layer = _layer(model)
    return _soft_prompt.ids(layer.base, len(layer.prompt_embeddings))


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`; PEFT counts the heads of keys and values here."""
    layer = _layer(model)
    shape: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]  # of transformers' models
    heads, size = _heads(shape)
    shared = _soft_prompt.settings_for(model, len(layer.prompt_embeddings), heads * size)
    return {**shared, "num_attention_heads": heads, "prefix_projection": False}


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for a prefix that PEFT wrote. Raises Mistake for what is not understood here.

    How PEFT made it (`prefix_projection`, `encoder_hidden_size`) does not matter: the file holds keys and values.
    """
    _soft_prompt.check(settings, names, _NAME, _OWN)
    return Config(num_virtual_tokens=settings["num_virtual_tokens"], init="random")


_OWN = ("encoder_hidden_size", "prefix_projection", "init_weights")


def _layer(model: nn.Module) -> VirtualIds:
    _attachment.expect(model, _NAME)
    layer = model.get_input_embeddings()  # type: ignore[operator]  # of transformers' models
    assert isinstance(layer, VirtualIds)
    return layer


def _heads(shape: Any) -> tuple[int, int]:
    """Heads of keys and values, and the size of one."""
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    return heads, getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads


def _refuse_inexact(shape: Any) -> None:
    """Raise Mistake for a model whose keys are not known to be replaced exactly."""
    rope = (getattr(shape, "rope_parameters", None) or {}).get("rope_type", "default")
    got = shape.model_type if shape.model_type not in MODEL_TYPES else f"{shape.model_type} with rope_type {rope}"
    if shape.model_type not in MODEL_TYPES or rope in (
        "dynamic",
        "longrope",
    ):  # turns that change with the text's length
        raise Mistake(
            f"method: prefix: got a model of type {got}, whose keys cannot be replaced exactly; "
            f"expected one of {', '.join(sorted(MODEL_TYPES))}; type --method.name prompt_tuning"
        )


def _attentions(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        if hasattr(module, "layer_idx") and path.rpartition(".")[2] in ("self_attn", "attn"):
            yield path, module


def _makers(model: nn.Module) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Path, layer and sides of every module that makes keys or values; a norm on keys (Qwen 3) makes the final ones."""
    for path, own in _attentions(model):
        fused = next((name for name in _FUSED if hasattr(own, name)), None)
        if fused:
            yield f"{path}.{fused}", own.layer_idx, ("keys", "values")
        else:
            yield f"{path}.{'k_norm' if hasattr(own, 'k_norm') else 'k_proj'}", own.layer_idx, ("keys",)
            yield f"{path}.v_proj", own.layer_idx, ("values",)


def _turned_back(model: nn.Module, tokens: int, size: int) -> Tensor | None:
    """What undoes the turn of positions 0, 1, …, `[tokens, size, size]`, by the model's own code; None without one."""
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        return None
    _, attention = next(_attentions(model))
    turn: Any = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    axes = torch.eye(size, device=rotary.inv_freq.device).view(1, size, 1, size).expand(1, size, tokens, size)
    places = torch.arange(tokens, device=axes.device).unsqueeze(0)
    with torch.no_grad():
        _, turned = turn(axes, axes, *rotary(axes, places))
    back: Tensor = torch.linalg.inv(turned[0].transpose(0, 1).double())
    return back.float()

"""Making a model ready for the engine: its attention, its layers, the precision of frozen and of trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from tunesmith.core.config import Precision, Quantization
from tunesmith.core.errors import Mistake
from tunesmith.core.machine import inspect
from tunesmith.engine import attention, layer, quantized
from tunesmith.engine.eighth import Eighths
from tunesmith.engine.linear import Embedding, Linear, replace
from tunesmith.models.load import kind_of

Kind = Literal["decoder", "encoder", "encoder-decoder"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that takes packed batches. `dtype` is the precision of frozen weights and of products.

    `ours` says that all its layers are the engine's own, `recompute` that training keeps only each layer's input.
    `kind` is how it reads: a decoder goes on from what it was given, an encoder-decoder answers a source it has read,
    an encoder has a head that labels what it read. `eighths` are its weights in 8 bits, for decoding few rows, where
    that was asked for. `quantization` is what the linear layers are stored in, where that is less than `dtype`.
    `identity` is the hash of the weights' content: by it what a frozen body makes of rows is kept between runs; without
    one nothing is kept. `folder` is where its files lie.
    """

    model: Any
    dtype: torch.dtype
    device: torch.device
    ours: bool = False
    recompute: bool = False
    kind: Kind = "decoder"
    eighths: Eighths | None = None
    quantization: Quantization | None = None
    identity: str = ""
    folder: Path | None = None

    @property
    def head(self) -> Any:
        """The layer that makes logits of hidden states."""
        return self.model.get_output_embeddings()

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: the first id of a virtual token."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def shares(self) -> bool:
        """Whether rows that begin alike can share their beginning: where a token sees only those before it."""
        return self.kind == "decoder"


def prepare(model: Any, precision: Precision = "auto", quantization: Quantization | None = None) -> Prepared:
    """Make `model` (a language model of transformers, or an encoder with a head) ready, in place; again is the same.

    Frozen weights of linear layers and embeddings are kept at product precision, everything else in float32, so the
    residual stream, the norms and whatever a method trains stay exact. With ``int8`` generation reads rounded weights
    where it decodes few rows; all else is as with ``auto``. With `quantization` frozen linear layers are stored in
    fewer bits (see `engine.quantized`). Text-to-text models keep transformers' own attention. Raises Mistake for a
    decoder whose attention cannot be replaced through transformers' interface, and for layers that cannot be quantized.
    """
    kind = kind_of_model(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = product_precision(precision)
    if kind == "encoder":
        return _prepare_encoder(model, dtype, device, quantization)
    if kind == "decoder" and not getattr(model, "_supports_attention_backend", False):
        raise Mistake(
            f"{type(model).__name__} does not let its attention be chosen (transformers' AttentionInterface); "
            "expected a decoder such as Llama, Qwen, Gemma, Mistral, Phi or GPT-2"
        )
    if kind == "decoder":
        attention.install()
        model.set_attn_implementation(attention.NAME)
    in_file = {id(parameter): parameter.data_ptr() for parameter in model.parameters()}
    before = any(isinstance(module, (Linear, Embedding)) for module in model.modules())
    replace(model, dtype)
    if quantization:
        quantized.quantize(model, quantization, device)
    ours = kind == "decoder" and layer.substitute(model)
    _store_at(model, dtype, {} if before else in_file)
    model.to(device).eval()
    rounded = precision == "int8" and device.type == "cpu"
    return Prepared(model, dtype, device, ours, False, kind, Eighths() if rounded else None, quantization)


def kind_of_model(model: nn.Module) -> Kind:
    """The kind of a model that is in memory, by its class."""
    config: Any = model.config
    told = {"is_encoder_decoder": config.is_encoder_decoder, "architectures": [type(model).__name__]}
    return cast(Kind, kind_of(told))


def _prepare_encoder(
    model: Any, dtype: torch.dtype, device: torch.device, quantization: Quantization | None
) -> Prepared:
    """Linear layers multiply in `dtype`; embeddings, which some encoders read as matrices, and the head stay float32.

    Attention is the model's own: an encoder's rows are padded, and each family masks in its way.
    """
    body: nn.Module = model.base_model
    replace(body, dtype, {nn.Linear: Linear})
    if quantization:
        quantized.quantize(model, quantization, device)
    _store_at(model, dtype, {id(parameter): parameter.data_ptr() for parameter in model.parameters()})
    model.to(device).eval()
    return Prepared(model, dtype, device, kind="encoder", quantization=quantization)


def product_precision(precision: Precision) -> torch.dtype:
    """What `auto` and `int8` multiply in on this machine: bfloat16 where there are units for it, else float32."""
    if precision in ("auto", "int8"):
        precision = "bfloat16" if inspect(torch=True).precision == "bfloat16" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _store_at(model: nn.Module, dtype: torch.dtype, in_file: dict[int, int]) -> None:
    """Frozen parameters that only our layers hold go to `dtype`; all others, and all that train, to float32.

    Quantized ones stay as they are.

    Those still lying where `in_file` says are copied even where their type is right: while one weight lies in the
    model's file, all of the file counts as memory of this process.
    """
    holders: dict[int, list[nn.Module]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                holders.setdefault(id(parameter), []).append(module)
                parameters[id(parameter)] = parameter
    for key, parameter in parameters.items():
        small = not parameter.requires_grad and parameter.dim() > 1
        small = small and all(isinstance(holder, (Linear, Embedding)) for holder in holders[key])
        there = in_file.get(key) == parameter.data_ptr()
        parameter.data = parameter.data.to(dtype if small else torch.float32, copy=there)

"""A model and its tokenizer by name, ready to be read or tuned: nothing random, nothing trainable, nothing remote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake
from tunesmith.models.folder import allow_pickle, read_config
from tunesmith.models.heads import CLASSES as HEADS
from tunesmith.models.heads import Head, load_with
from tunesmith.models.identity import identity
from tunesmith.models.quiet import quiet
from tunesmith.models.source import fetch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CLASSES = {"decoder": "AutoModelForCausalLM", "encoder-decoder": "AutoModelForSeq2SeqLM"}
"""Transformers' class for each kind of model that writes text."""
NO_WINDOW = 1 << 20
"""The context length given for architectures without a fixed window, such as state-space models."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode with every weight frozen, its tokenizer, and what they are.

    `name` is what the person typed; `folder` where the files lie; `identity` the hash of the weights' content; `made`
    the modules of the head that the files lack.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    folder: Path
    identity: str
    made: tuple[str, ...] = ()


def load(name: str, *, offline: bool | None = None, head: Head | None = None, seed: int = 0) -> Loaded:
    """Load a model by catalogue name, hub id, folder or .gguf file, fetching it the first time.

    One that writes text comes as a language model; an encoder comes under `head`, which is drawn from `seed` where the
    files have none. Weights keep the type they are stored in; attention is transformers' default. Raises Mistake when
    the model is not there, not whole, an encoder and no head is asked for, quantized, or needs code of its own.
    """
    import transformers

    folder = fetch(name, offline=offline)
    config = read_config(folder)
    _check(config, name, encoders=head is not None)
    if head is not None and kind_of(config) == "encoder":
        under, made = load_with(folder, name, head, seed, allow_pickle())
        under.eval().requires_grad_(False)  # type: ignore[no-untyped-call]  # of transformers
        return Loaded(under, _tokenizer(folder, name), name, folder, identity(folder), made)
    automatic: Any = getattr(transformers, CLASSES[kind_of(config)])
    with quiet():
        model, report = automatic.from_pretrained(
            folder,
            dtype="auto",
            use_safetensors=None if allow_pickle() else True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise Mistake(
            f"model {name}: {folder} lacks {len(missing)} weights ({missing[0]} …), which would be random; "
            "expected a whole model; fetch it again"
        )
    model.eval().requires_grad_(False)
    return Loaded(model, _tokenizer(folder, name), name, folder, identity(folder))


def lay_out(folder: Path) -> PreTrainedModel:
    """The model of a folder without its weights: under ``torch.device("meta")`` it takes no memory, and can be counted.

    An encoder comes with a head for two labels. Raises Mistake as `load` does.
    """
    import transformers

    told = read_config(folder)
    _check(told, str(folder), encoders=True)
    automatic: Any = getattr(transformers, CLASSES.get(kind_of(told), HEADS["sequence"]))
    configuration: Any = transformers.AutoConfig
    with quiet():
        model: PreTrainedModel = automatic.from_config(
            configuration.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
    return model


def load_tokenizer(name: str, *, offline: bool | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer alone; a model without a chat template has `chat_template` None. Raises Mistake as `load` does."""
    return _tokenizer(fetch(name, offline=offline), name)


def context_length(config: PretrainedConfig) -> int:
    """How many tokens the model can see at once, by whatever name its configuration gives it."""
    text = config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"):
        if isinstance(length := getattr(text, key, None), int):
            return length
    return NO_WINDOW


def _tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise Mistake(f"model {name}: {folder} has no tokenizer; expected tokenizer.json; copy it from the base model")
    automatic: Any = AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = automatic.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return tokenizer


def kind_named(name: str) -> str:
    """The kind of the model `name`, fetched if need be, by its configuration alone."""
    return kind_of(read_config(fetch(name)))


def kind_of(config: dict[str, Any]) -> str:
    """ "decoder", "encoder" or "encoder-decoder", by the architectures the configuration names."""
    if config.get("is_encoder_decoder"):
        return "encoder-decoder"
    names = config.get("architectures") or ["ForCausalLM"]
    return (
        "decoder"
        if any(("CausalLM" in name or "LMHead" in name or "Conditional" in name) for name in names)
        else "encoder"
    )


def _check(config: dict[str, Any], name: str, *, encoders: bool) -> None:
    """Tell what cannot be loaded before torch tries; `encoders` are admitted where there is a head for them."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as TEXT_TO_TEXT

    if (kind := kind_of(config)) not in CLASSES and not encoders:
        raise Mistake(f"model {name}: got an {kind}; expected a model that writes text; see `tunesmith models list`")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise Mistake(
            f"model {name}: needs code of its own, which we do not run; expected an architecture of transformers"
        )
    if config.get("model_type") not in CONFIG_MAPPING:
        raise Mistake(
            f"model {name}: transformers here does not know the architecture '{config.get('model_type')}'; "
            "type `pip install --upgrade transformers`, or choose another model"
        )
    if kind == "encoder-decoder" and config["model_type"] not in TEXT_TO_TEXT:
        raise Mistake(
            f"model {name}: transformers has no text-to-text model of the architecture '{config['model_type']}'; "
            "expected T5, FLAN, BART or one like them"
        )
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "a quantized format")
        raise Mistake(f"model {name}: got weights in {method}; expected plain ones; use the original model or a .gguf")

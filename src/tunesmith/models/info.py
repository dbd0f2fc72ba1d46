"""What a model is, without loading its weights: size, shape, context, licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import Mistake
from tunesmith.models.catalog import Entry, entry
from tunesmith.models.folder import read_config, weight_files
from tunesmith.models.hub import describe
from tunesmith.models.load import CLASSES, context_length, kind_of
from tunesmith.models.source import HUB_ID, fetch, find

_BYTES_STORED = 2
"""Bytes a parameter takes on disk where the weights are not here to be measured: most are published in 16 bits."""


@dataclass(frozen=True, slots=True)
class Info:
    """A model described.

    `parameters` counts tied weights once; `bytes` is what the weights take on disk (an estimate while `folder` is None,
    which means not pulled yet); `context` is in tokens; `licence` is as its source states it, "" when it does not.
    """

    name: str
    kind: str
    architecture: str
    parameters: int
    bytes: int
    layers: int
    hidden: int
    vocabulary: int
    context: int
    licence: str
    good_for: str
    chat_template: bool | None
    folder: Path | None


def info(name: str, *, offline: bool | None = None) -> Info:
    """Describe a model by catalogue name, hub id, folder or .gguf file.

    A model that is not here is not fetched: of a hub id only the configuration is, and of a catalogue package nothing,
    so that its shape reads 0 until it is pulled. Raises Mistake when there is no such model.
    """
    known = entry(name)
    here = find(name)
    if here is None and known is not None and known.package:
        return _from_catalog(known)
    if here is not None:
        folder = here
    elif hub := HUB_ID.match(known.hub if known else name):
        folder = describe(hub["repo"], hub["revision"], offline=offline)
    else:
        folder = here = fetch(name, offline=offline)
    return _from_folder(name, known, folder, pulled=here is not None)


def _from_catalog(known: Entry) -> Info:
    return Info(
        name=known.name,
        kind=known.kind,
        architecture="",
        parameters=known.parameters,
        bytes=known.parameters * _BYTES_STORED,
        layers=0,
        hidden=0,
        vocabulary=0,
        context=known.context,
        licence=known.licence,
        good_for=known.good_for,
        chat_template=None,
        folder=None,
    )


def _from_folder(name: str, known: Entry | None, folder: Path, *, pulled: bool) -> Info:
    from transformers import AutoConfig

    plain = read_config(folder)
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        raise Mistake(
            f"model {name}: {str(error).splitlines()[0]}; expected an architecture of transformers"
        ) from error
    text = config.get_text_config()
    parameters = _count(config, kind_of(plain))
    return Info(
        name=known.name if known else name,
        kind=kind_of(plain),
        architecture=(plain.get("architectures") or [config.model_type])[0],
        parameters=parameters,
        bytes=sum(file.stat().st_size for file in weight_files(folder)) if pulled else parameters * _BYTES_STORED,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        context=context_length(config),
        licence=known.licence if known else _licence(folder),
        good_for=known.good_for if known else "",
        chat_template=_has_template(folder) if pulled else None,
        folder=folder if pulled else None,
    )


def _count(config: Any, kind: str) -> int:
    """Parameters of the architecture, built without memory."""
    import torch
    import transformers

    automatic: Any = getattr(transformers, CLASSES.get(kind, "AutoModel"))
    with torch.device("meta"):
        model = automatic.from_config(config)
    count: int = sum(weight.numel() for weight in model.parameters())
    # Transformers ties the head of every T5 it makes, and unties those of version 1.1 (FLAN) as it loads them.
    return count if getattr(config, "scale_decoder_outputs", True) else count + int(config.vocab_size * config.d_model)


def _licence(folder: Path) -> str:
    """The licence in the front matter of the folder's README.md, as the hub keeps it."""
    readme = folder / "README.md"
    if not readme.is_file():
        return ""
    head, _, rest = readme.read_text(encoding="utf-8", errors="replace").partition("---")
    matter = rest.partition("\n---")[0] if not head.strip() else ""
    try:
        fields = yaml.safe_load(matter)
    except yaml.YAMLError:
        return ""
    return str(fields.get("license", "")) if isinstance(fields, dict) else ""


def _has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    inside = config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
    return inside or (folder / "chat_template.jinja").is_file()

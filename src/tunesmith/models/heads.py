"""The head a task needs on an encoder: one of transformers' own classes, loaded where it is there, else drawn anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

CLASSES = {
    "sequence": "AutoModelForSequenceClassification",
    "several": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
    "masked": "AutoModelForMaskedLM",
    "next": "AutoModelForNextSentencePrediction",
    "body": "AutoModel",
}
"""What a head scores, and the class of transformers that does it; a body has no head."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a head scores (a key of `CLASSES`), and its labels in order; none where it has no names for them."""

    kind: str
    labels: tuple[str, ...] = ()


def load_with(folder: Path, name: str, head: Head, seed: int, pickle: bool) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model in `folder` under `head`, and the paths of the modules that its files lack, drawn from `seed`.

    Raises Mistake for a head trained for other labels or that the architecture has not, and where weights of the body
    are missing.
    """
    import torch
    import transformers

    from tunesmith.models.quiet import quiet

    automatic: Any = getattr(transformers, CLASSES[head.kind])
    config = _config(folder, name, head)
    if type(config) not in automatic._model_mapping:
        raise Mistake(
            f"model {name}: transformers has no {CLASSES[head.kind].removeprefix('AutoModelFor')} for the architecture "
            f"'{config.model_type}'; choose another model"
        )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = automatic.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            use_safetensors=None if pickle else True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    body = "" if head.kind == "body" else f"{model.base_model_prefix}."
    lacking = sorted(key for key in missing if key.startswith(body) and ".pooler." not in f".{key}")
    if lacking:
        raise Mistake(
            f"model {name}: {folder} lacks {len(lacking)} weights ({lacking[0]} …), which would be random; "
            "expected a whole model; fetch it again"
        )
    return model, made(model, missing)


def made(model: nn.Module, missing: Collection[str]) -> tuple[str, ...]:
    """The outermost modules none of whose parameters were in the files."""
    found: list[str] = []
    for path, module in model.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if path and own and set(own) <= set(missing) and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return tuple(found)


def _config(folder: Path, name: str, head: Head) -> Any:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not head.labels:
        return config
    there = tuple(config.id2label.values())
    suffix = CLASSES[head.kind].removeprefix("AutoModel")
    is_head = any(architecture.endswith(suffix) for architecture in config.architectures or ())
    if is_head and there != head.labels and not all(label.startswith("LABEL_") for label in there):
        raise Mistake(
            f"model {name}: its head was trained for the labels {', '.join(there)}; the task has "
            f"{', '.join(head.labels)}; give task.labels as they are, or start from the model without a head"
        )
    config.id2label = dict(enumerate(head.labels))
    config.label2id = {label: place for place, label in enumerate(head.labels)}
    if head.kind in ("sequence", "several"):
        several = head.kind == "several"
        config.problem_type = "multi_label_classification" if several else "single_label_classification"
    return config

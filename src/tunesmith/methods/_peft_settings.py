"""`adapter_config.json`: written so that peft reads it, and read with care, since what is not understood is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from torch import nn

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names
from tunesmith.methods import _head

_ABOUT = frozenset(
    {"peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"}
)
"""Keys that say what the adapter is, not how it computes."""
_HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}

ANY = "ANY"
"""The PEFT_TYPE of a method for every type of PEFT that has no method of its own."""


class NotMine(Mistake):
    """Settings of PEFT's type that mean another method of ours (DoRA is one of PEFT's LoRA)."""


def write(method: ModuleType, model: nn.Module, config: Section, base: str) -> dict[str, Any]:
    """What `adapter_config.json` says of `method`, attached to `model`."""
    head = _head.paths(model)
    return {
        "peft_type": method.PEFT_TYPE,
        "task_type": _task_type(model),
        "base_model_name_or_path": base,
        "inference_mode": True,
        **method.to_peft(model, config),
        **({"modules_to_save": list(head)} if head else {}),
    }


def _task_type(model: nn.Module) -> str | None:
    """PEFT's word for what the model's head does, by its class; None where PEFT has none."""
    name = type(model).__name__
    return next((kind for suffix, kind in _TASK_TYPES.items() if name.endswith(suffix)), None)


def recognise(settings: Mapping[str, Any], keys: Collection[str]) -> tuple[str, Section]:
    """The method and config that compute what PEFT's `settings` and weights called `keys` mean.

    Every method of PEFT's type is asked in turn, since several of ours may be variants of one of theirs, and the one
    for all types only where the type has none of its own. Raises Mistake when none can, with the reason of the first
    one that they are meant for.
    """
    kind = settings.get("peft_type")
    kinds = {name: choice("methods", name).PEFT_TYPE for name in names("methods")}
    own = [name for name, its in kinds.items() if its is not None and its == kind]
    refusals: list[Mistake] = []
    for name in own or [name for name, its in kinds.items() if its == ANY]:
        try:
            return name, choice("methods", name).from_peft(settings, keys)
        except Mistake as mistake:
            refusals.append(mistake)
        except (KeyError, ValidationError) as error:
            reason = " ".join(str(error).split())
            refusals.append(Mistake(f"adapter_config.json: {reason}; expected what peft wrote; copy it again"))
    raise next((refusal for refusal in refusals if not isinstance(refusal, NotMine)), refusals[0])


def refuse_unknown(settings: Mapping[str, Any], understood: Collection[str], method: str) -> None:
    """Raise Mistake for a setting outside `understood` that is switched on: it would change the result."""
    task = settings.get("task_type")
    # What a head was saved under is a matter of names, which are compared when it is restored.
    understood = {*understood, "modules_to_save"} if task in _HEADS else understood
    for key, value in settings.items():
        if key in understood or key in _ABOUT or not value or value == "none":
            continue
        raise Mistake(
            f"adapter_config.json: {key}: {value!r} is not supported by {method}; expected a plain {method} adapter; "
            f"merge the adapter into its base with peft and use the merged model"
        )
    if task not in (None, *_TASK_TYPES.values()):
        known = ", ".join(dict.fromkeys(_TASK_TYPES.values()))
        raise Mistake(f"adapter_config.json: task_type: {task} is not supported; expected one of {known}")

"""What the peft library has by name: the types that can be put into a model here, and the keys that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from tunesmith.core.errors import nearest

SAID_ELSEWHERE = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version",
    "target_modules",
})  # fmt: skip
"""Keys of every type that are no settings of its own: the model, the type and the targets say them."""
_REFUSED = {
    "ADALORA": "needs a call after every step: type --method.name adalora",
    "ADAPTION_PROMPT": "changes how attention itself is computed",
    "LILY": "answers a row differently for what stands beside it: its router averages over all tokens it is given",
    "OSF": "splits up the base's own weights",
    "POLY": "wants every input to name its task",
    "SHADOW": "runs a second model beside the first",
    "XLORA": "mixes adapters that are trained already",
}


@cache
def known() -> tuple[str, ...]:
    """The types of the installed peft that put layers of their own into a model, by name."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    layered = (kind.value for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if issubclass(tuner, BaseTuner))
    return tuple(sorted(set(layered) - set(_REFUSED)))


def why_not(kind: str) -> str:
    """What should have been said instead of the type `kind`; "" when it is known."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if kind in known():
        return ""
    if kind in _REFUSED:
        return f"another type, since {kind} {_REFUSED[kind]}"
    if kind in {its.value for its in PEFT_TYPE_TO_CONFIG_MAPPING}:
        return "a type that changes layers; soft prompts have methods of their own: type --method.name prompt_tuning"
    return f"a type of the installed peft; {nearest(kind, known())}"


def config_class(kind: str) -> Any:
    """Peft's config class of a type."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]


def tuner_class(kind: str) -> Any:
    """Peft's class that puts a type's layers into a model."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import PeftType

    return PEFT_TYPE_TO_TUNER_MAPPING[PeftType(kind)]


def keys(kind: str) -> dict[str, Field[Any]]:
    """The settings of a type, by name."""
    return {field.name: field for field in fields(config_class(kind)) if field.name not in SAID_ELSEWHERE}


def changed(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that are the type's own and not at their default."""
    usual = {
        name: field.default if field.default_factory is MISSING else field.default_factory()
        for name, field in keys(kind).items()
    }
    apart = {name: value for name, value in settings.items() if name not in SAID_ELSEWHERE}
    return {name: value for name, value in apart.items() if name not in usual or value != usual[name]}


def check(kind: str, given: Mapping[str, Any], others: tuple[str, ...]) -> None:
    """Raise ValidationError for a key that the type does not have, and for a value its config class does not admit.

    `others` are the keys that may stand beside the type's own.
    """
    has, hints = keys(kind), get_type_hints(config_class(kind))
    wrong: list[InitErrorDetails] = []
    for name, value in given.items():
        if name not in has:
            unknown = PydanticCustomError("extra_forbidden", "no such key", {"known": [*has, *others]})
            wrong.append(InitErrorDetails(type=unknown, loc=(name,), input=value))
        elif problem := _problem(value, hints[name]):
            said = PydanticCustomError("value_error", "{expected}", {"expected": problem})
            wrong.append(InitErrorDetails(type=said, loc=(name,), input=value))
    if wrong:
        raise ValidationError.from_exception_data("peft", wrong)


def _problem(value: Any, hint: Any) -> str:
    """What a value should have been by its type in peft, "" where it is that."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a section of its own (a dataclass, a model) brings its own check
        adapter = TypeAdapter(hint)
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return " or ".join(dict.fromkeys(item["msg"].removeprefix("Input should be ") for item in error.errors()))
    return ""

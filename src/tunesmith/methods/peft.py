"""Any method of the peft library by its name, with its own keys: HiRA, LoHa, LoKr, OFT, BOFT, C3A, RandLoRA …

`type` is peft's name for it; every key beside it is one of that type's config class and is checked against it. Peft's
own layers do the computing, and peft's own format is on disk. What has a file of its own here (`tunesmith methods`) is
faster, and several of it can serve in one batch; that is not so here, since peft mixes adapters in a batch wrongly for
some types.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.methods import _attachment, _head, _peft_settings, _peft_types, _targets

FAMILY = "other"
GOOD_FOR = "what has no file of its own here: any type of the peft library"
LEARNING_RATE = 1e-3
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = _peft_settings.ANY
WHOLE = False

_NAME = "peft"
_ADAPTER = "default"
_OTHER_LAYERS = ("LN_TUNING", "TRAINABLE_TOKENS")
"""Types that change other layers than linear ones; unless `target_modules` says, peft knows which."""
_PEFTS = (ValueError, TypeError, NotImplementedError, RuntimeError, AttributeError, ImportError, IndexError)
"""What peft raises for settings or a model that do not suit it."""


class Config(Section):
    """The keys of ``method: {name: peft}``; beside these, all those of the type's config class in peft."""

    model_config = ConfigDict(extra="allow")

    type: str = Field("HIRA", description="the method's name in peft: HIRA, LOHA, LOKR, OFT, BOFT, C3A, RANDLORA …")
    target_modules: str | list[str] = Field(
        _targets.ALL_LINEAR, description="all-linear, a list of layer names, or a regular expression"
    )

    @model_validator(mode="after")
    def _as_peft_has_it(self) -> Config:
        """The type must be one of peft's, and every other key one of that type's config class."""
        if expected := _peft_types.why_not(self.type.upper()):
            self._refuse_type(expected)
        _peft_types.check(self.type.upper(), self.model_extra or {}, tuple(type(self).model_fields))
        try:
            _settings(self, None)
        except _PEFTS as error:
            self._refuse_type(f"keys that suit it: {_first_line(error)}")
        return self

    def _refuse_type(self, expected: str) -> None:
        said = PydanticCustomError("value_error", "{expected}", {"expected": expected})
        raise ValidationError.from_exception_data(_NAME, [InitErrorDetails(type=said, loc=("type",), input=self.type)])


@dataclass
class _Injected:
    """What peft put into a model: its tuner, and the base's own modules by their path."""

    tuner: Any
    modules: dict[str, nn.Module]


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and have peft put its layers in; what trains is float32.

    Raises Mistake when a target matches nothing, or when the type cannot change this model's layers.
    """
    kind = config.type.upper()
    settings = _settings_for(model, config)
    attachment = _attachment.claim(model, _NAME)
    modules, own = dict(model.named_modules()), {id(tensor) for tensor in _tensors(model)}
    try:
        with warnings.catch_warnings(record=True, action="default") as told:
            tuner = _peft_types.tuner_class(kind)(model, settings, _ADAPTER)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not any(id(parameter) not in own for parameter in trained):
            raise ValueError("it adds no weights of its own")
        if any(id(parameter) in own for parameter in trained):
            raise ValueError("it would train the base's own weights")
        for name, parameter in model.named_parameters():
            if _head.holds(model, name):  # peft has just frozen it
                parameter.requires_grad_(True)
        for tensor in [tensor for tensor in _tensors(tuner) if id(tensor) not in own and tensor.is_floating_point()]:
            tensor.data = tensor.data.float()
        _show_copies(tuner)
        _try(tuner)
    except _PEFTS as error:
        _take_out(model, modules)
        raise Mistake(
            f"method: {kind} of peft does not suit this model: {_first_line(error)}; "
            "type other --method.target_modules, or another --method.type"
        ) from None
    attachment.kept = _Injected(tuner, modules)
    for name in attachment.head:  # peft freezes all that is not its own
        model.get_parameter(name).requires_grad_(True)
    for message in dict.fromkeys(str(warning.message).strip().split("\n")[0] for warning in told):
        say(f"peft: {message}")


def detach(model: nn.Module) -> None:
    """Take peft's layers out: the base's own modules are back in their places."""
    _take_out(model, _injected(model).modules)


def merge(model: nn.Module) -> None:
    """Have peft add what was learned to the weights of its layers. Raises Mistake where the type cannot do that."""
    injected = _injected(model)
    try:
        for path, layer in list(model.named_modules()):
            if isinstance(layer, injected.tuner.tuner_layer_cls):
                layer.merge()
                injected.modules[path] = layer.get_base_layer()  # another one where a copy was trained in its stead
    except _PEFTS as error:
        kind = injected.tuner.peft_config[_ADAPTER].peft_type.value
        raise Mistake(f"peft: {kind} cannot be merged: {_first_line(error)}; keep it beside the base") from None
    detach(model)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names, with whatever else peft writes beside them."""
    from peft import get_peft_model_state_dict

    found: dict[str, Tensor] = get_peft_model_state_dict(_as_peft_sees(model), save_embedding_layers=False)
    return {name: tensor.detach() for name, tensor in found.items()}


def written(model: nn.Module, config: Config) -> tuple[Config, dict[str, Tensor]]:
    """What goes to disk: `state`, tensors that several layers share copied for each, as peft does."""
    return config, {name: tensor.clone() for name, tensor in state(model).items()}


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    from peft import set_peft_model_state_dict

    _attachment.refuse_unfit(state(model), weights, _NAME)
    set_peft_model_state_dict(_as_peft_sees(model), dict(weights))


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """What peft itself writes into `adapter_config.json`, every target spelled out."""
    settings = _injected(model).tuner.peft_config[_ADAPTER]
    said = {"task_type", "base_model_name_or_path", "inference_mode"}
    plain = {key: value for key, value in settings.to_dict().items() if key not in said}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in plain.items()} | {
        "peft_type": settings.peft_type.value
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that peft wrote. Raises Mistake for a type that cannot be laid on a model here."""
    kind, targets = str(settings.get("peft_type")), settings.get("target_modules")
    if expected := _peft_types.why_not(kind):
        raise Mistake(f"adapter_config.json: peft_type: got {kind}; expected {expected}")
    where = {"target_modules": targets} if targets else {}
    return Config(type=kind, **where, **_peft_types.changed(kind, settings))


def _settings(config: Config, targets: str | list[str] | None, head: tuple[str, ...] = (), **keys: Any) -> Any:
    """Peft's own config object; `keys` are defaults that lie below what the person said.

    A `head` made for the task is trained and kept by us, so peft is not told to save it.
    """
    said = {**keys, **(config.model_extra or {})}
    if head and "modules_to_save" in said:
        said["modules_to_save"] = [name for name in said["modules_to_save"] or () if name not in head] or None
    return _peft_types.config_class(config.type.upper())(target_modules=targets, **said)


def _settings_for(model: nn.Module, config: Config) -> Any:
    """Peft's config object with the layers to change spelled out, and how they keep their matrix."""
    kind, head = config.type.upper(), _head.paths(model)
    if kind in _OTHER_LAYERS:
        return _settings(config, config.target_modules if "target_modules" in config.model_fields_set else None, head)
    found = _targets.find(model, config.target_modules)
    turned = any(isinstance(layer, Conv1D) for layer in found.values())
    keys = {"fan_in_fan_out": turned} if "fan_in_fan_out" in _peft_types.keys(kind) else {}
    return _settings(config, _targets.names_for(model, found), head, **keys)


def _injected(model: nn.Module) -> _Injected:
    found: _Injected = _attachment.expect(model, _NAME).kept
    return found


def _as_peft_sees(model: nn.Module) -> nn.Module:
    """The model inside its tuner inside a shell, as in a `PeftModel`, so that every name is the one peft writes."""
    shell, tuner = nn.Module(), _injected(model).tuner
    shell.base_model, shell.peft_config = tuner, tuner.peft_config
    return shell


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _try(tuner: Any) -> None:
    """Raise RuntimeError unless every layer takes the float32 that passes between layers: some types cannot.

    They would want float32 in the base's weights, too.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for layer in [module for module in tuner.modules() if isinstance(module, tuner.tuner_layer_cls)]:
            base = layer.get_base_layer()
            if isinstance(base, _targets.LINEAR):
                nothing = torch.zeros(1, base.nx if isinstance(base, Conv1D) else base.in_features)
            elif isinstance(base, nn.Embedding):
                nothing = torch.zeros(1, dtype=torch.long)
            else:
                continue
            try:
                layer(nothing.to(base.weight.device))
            except RuntimeError:
                if base.weight.dtype == torch.float32:
                    raise
                if not base.weight.is_floating_point():
                    raise RuntimeError("it reads the base's weights, which are quantized") from None
                raise RuntimeError("it needs the base's weights in float32 (--precision float32)") from None


def _show_copies(tuner: Any) -> None:
    """Where peft trains a copy of a norm, have its layer show the copy's weight and epsilon, not those of the base.

    The engine's own decoder layers read a norm instead of calling it.
    """
    for layer in [module for module in tuner.modules() if isinstance(module, tuner.tuner_layer_cls)]:
        for copy in getattr(layer, "ln_tuning_layers", {}).values():
            layer.base_layer = copy
            layer.__dict__ |= {name: value for name, value in vars(copy).items() if name not in vars(layer)}


def _take_out(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for path, module in modules.items():  # from the root down, so that what a wrapper held is in place before its parts
        if path and model.get_submodule(path) is not module:
            _targets.replace(model, path, module)
    model.__dict__.pop("peft_config", None)
    _attachment.release(model, _NAME)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")

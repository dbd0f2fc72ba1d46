"""What a run leaves: PEFT's format wherever PEFT has the method, and `tunesmith.json` beside it.

* a method PEFT knows: `adapter_config.json` and `adapter_model.safetensors`, as peft, vLLM and transformers load them;
* one it does not know: `delta.safetensors`, named as the model's parameters;
* a whole model: a folder of transformers.

`tunesmith.json` says the method, its config, the base it belongs to, the chat template it was trained with and the
task. Written whole or not at all, and never with a NaN in it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from tunesmith.core.config import Section, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_folder
from tunesmith.core.rooms import choice
from tunesmith.methods import _peft_settings, _state

_ABOUT = "tunesmith.json"
_SETTINGS = "adapter_config.json"
_ADAPTER = "adapter_model.safetensors"
_DELTA = "delta.safetensors"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an artifact comes from: the base's name and identity, the template's hash, the task as in the task file.

    `quantization` is what the base's linear layers were stored in, "" where as they are; `reads` what the head of a
    model that reads scores. Of the others an empty field is one that is not known.
    """

    base: str
    identity: str = ""
    template: str = ""
    task: Mapping[str, Any] = field(default_factory=dict)
    quantization: str = ""
    reads: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an artifact's folder says about itself; `versions` is empty when somebody else wrote it."""

    method: str
    config: Section
    origin: Origin
    versions: Mapping[str, str]


def save(
    folder: Path,
    model: nn.Module,
    name: str,
    config: Section,
    origin: Origin,
    beside: Callable[[Path], object] | None = None,
) -> None:
    """Write what the method `name`, attached to `model`, has learned; a folder that is there is replaced as a whole.

    `beside(folder)` may write more files into it (a tokenizer, for a whole model). Raises Mistake when a weight is not
    a finite number, or the disk is full or read-only.
    """
    method = choice("methods", name)
    trained = state = method.state(model)
    if hasattr(method, "written"):
        config, state = method.written(model, config)
    state |= _state.head(method, model)
    _refuse_not_finite({**trained, **state}, f"{name}: not saved:", "lower learning_rate and train again")
    with atomic_folder(folder) as partial:
        if method.WHOLE:
            with _silence():
                model.save_pretrained(partial)  # type: ignore[operator]  # of transformers' models
        else:
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
            save_file(plain, partial / (_ADAPTER if method.PEFT_TYPE else _DELTA), metadata={"format": "pt"})
        if method.PEFT_TYPE:
            _write_json(partial / _SETTINGS, _peft_settings.write(method, model, config, origin.base))
        if beside is not None:
            beside(partial)
        _write_json(partial / _ABOUT, _about(name, config, origin))


def load(folder: Path, model: nn.Module, identity: str = "") -> tuple[str, Section]:
    """Attach the artifact in `folder`, ours or peft's, to `model`; gives the method's name and config.

    `identity` is the model's own; where both it and the artifact's are known they must agree. Raises Mistake when they
    do not, when a weight fits nowhere or is missing, and when there is no artifact; the model is then as it was.
    """
    artifact = describe(folder)
    origin, method = artifact.origin, choice("methods", artifact.method)
    if identity and origin.identity and identity != origin.identity:
        raise Mistake(
            f"{folder}: made for the base {origin.base} ({origin.identity[:12]}), but this model is another "
            f"({identity[:12]}); expected the same weights; load it on {origin.base}"
        )
    state = _read_whole(folder, model) if method.WHOLE else _read_tensors(_weights_file(folder))
    _refuse_not_finite(state, f"{folder}:", "train it again")
    # A start that is overwritten at once must not move the run's random numbers.
    with torch.random.fork_rng(devices=[]):
        method.attach(model, artifact.config)
    try:
        _state.restore(method, model, state)
    except Mistake as mistake:
        method.detach(model)
        raise Mistake(f"{folder}: {mistake}") from None
    return artifact.method, artifact.config


def describe(folder: Path) -> Artifact:
    """What the folder says of itself, without loading weights. Raises Mistake when it holds no artifact."""
    if (folder / _ABOUT).is_file():
        return _ours(folder, _read_json(folder / _ABOUT))
    if (folder / _SETTINGS).is_file():
        return _of_peft(folder, _read_json(folder / _SETTINGS))
    raise Mistake(
        f"{folder}: no artifact here; expected a folder with {_ABOUT} or {_SETTINGS}; "
        "type `tunesmith runs list` to see what there is"
    )


def _ours(folder: Path, about: Mapping[str, Any]) -> Artifact:
    if about.get("format", 0) > _FORMAT:
        raise Mistake(f"{folder}: written by a newer tunesmith; expected format {_FORMAT}; upgrade to load it")
    try:
        name, origin = about["method"], Origin(**about["origin"])
        config = choose("methods", name, **about["config"]).config
    except (KeyError, TypeError) as error:
        raise Mistake(
            f"{folder / _ABOUT}: incomplete ({error}); expected what tunesmith wrote; copy it again"
        ) from None
    except Mistake as mistake:
        raise Mistake(f"{folder / _ABOUT}: {'; '.join(str(mistake).splitlines())}") from None
    return Artifact(name, config, origin, about.get("versions", {}))


def _of_peft(folder: Path, settings: Mapping[str, Any]) -> Artifact:
    weights = _weights_file(folder)
    with _readable(weights), safe_open(weights, framework="pt") as file:
        keys = frozenset(file.keys())
    try:
        name, config = _peft_settings.recognise(settings, keys)
    except Mistake as mistake:
        raise Mistake(f"{folder}: {mistake}") from None
    return Artifact(name, config, Origin(settings.get("base_model_name_or_path") or ""), {})


def _about(name: str, config: Section, origin: Origin) -> dict[str, Any]:
    packages = ("tunesmith", "torch", "transformers")
    return {
        "format": _FORMAT,
        "method": name,
        "config": config.model_dump(mode="json"),
        "origin": asdict(origin),
        "versions": {package: version(package) for package in packages},
    }


def _weights_file(folder: Path) -> Path:
    for name in (_ADAPTER, _DELTA):
        if (folder / name).is_file():
            return folder / name
    if (folder / "adapter_model.bin").is_file():
        raise Mistake(
            f"{folder}: adapter_model.bin is a pickle, which can run code; convert it to {_ADAPTER} with peft"
        )
    raise Mistake(f"{folder}: the weights are missing; expected {_ADAPTER} or {_DELTA} beside the settings")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _readable(path):
        return load_file(path)


def _read_whole(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Parameters of the whole model in `folder`, by the names that a model of this class gives them."""
    kind: Any = type(model)
    with _silence(), _readable(folder):
        loaded, report = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    if missing := report["missing_keys"]:
        raise Mistake(f"{folder}: the weights lack {min(missing)}; expected a whole model; copy or train it again")
    return {name: parameter.detach() for name, parameter in loaded.named_parameters()}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise Mistake(f"{path}: not readable ({error}); expected whole safetensors; copy or train it again") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal: progress is told by our own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it untyped
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it untyped


def _refuse_not_finite(state: Mapping[str, Tensor], what: str, remedy: str) -> None:
    for name, tensor in state.items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise Mistake(f"{what} {wrong} of {tensor.numel()} numbers in {name} are NaN or infinite; {remedy}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise Mistake(f"{path}: not readable as JSON ({error}); copy the artifact again") from None
    if not isinstance(value, dict):
        raise Mistake(f"{path}: got a {type(value).__name__}; expected an object; copy the artifact again")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

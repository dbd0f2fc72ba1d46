"""Checkpoints that are whole or absent, hold everything a run needs to go on bit for bit, and contain no pickle.

checkpoints/step-000100/weights.safetensors     what trains, by parameter name
                        optimizer.safetensors   the optimizer's tensors and torch's random numbers
                        best.safetensors        the weights that validated best so far, where there are any
                        memory.safetensors      what the method remembers from step to step, where it does
                        state.json              step, losses the guard remembers, the caller's own state
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_folder
from tunesmith.core.progress import say
from tunesmith.engine import optimizers
from tunesmith.engine.aside import Aside
from tunesmith.engine.loop import Guard
from tunesmith.methods._attachment import attached

KEEP = 2
"""Checkpoints kept: the latest, and the one before it should the disk have lied about the latest."""

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_BEST, _MEMORY = "best.safetensors", "memory.safetensors"


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that train, each once (tied ones under their first name)."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    guard: Guard,
    state: dict[str, Any],
    best: Aside | None = None,
) -> Path:
    """Write the checkpoint of `step` below `folder` and drop all but the last two.

    `state` is the caller's, plain JSON; `best` the weights that validated best so far.

    Raises Mistake when the disk is full or read-only; earlier checkpoints stay.
    """
    target = folder / f"step-{step:06d}"
    with atomic_folder(target, remedy="set output_dir to a place with room") as new:
        save_file({name: p.detach().contiguous() for name, p in trained(model)}, new / _WEIGHTS)
        tensors, plain = optimizers.slots(guard.optimizer)
        save_file({**tensors, **_random_state()}, new / _OPTIMIZER)
        if best:
            best.write(new / _BEST)
        if (method := attached(model)) is not None and method.memory:
            save_file({name: tensor.contiguous() for name, tensor in method.memory.items()}, new / _MEMORY)
        told = {"step": step, "optimizer": plain, "losses": list(guard.losses), "bad": guard.bad, "state": state}
        (new / _STATE).write_text(json.dumps(told), encoding="utf-8")
    for old in _all(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`, None when there is none; a damaged one is passed over and told."""
    for checkpoint in reversed(_all(folder)):
        try:
            others = [part for part in (_BEST, _MEMORY) if (checkpoint / part).exists()]
            for part in [_WEIGHTS, _OPTIMIZER, *others]:
                with safe_open(checkpoint / part, framework="pt"):
                    pass
            state(checkpoint)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            say(f"{checkpoint}: damaged ({error}); going back to the one before")
        else:
            return checkpoint
    return None


def state(checkpoint: Path) -> dict[str, Any]:
    """What the caller gave to be kept."""
    return dict(json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["state"])


def load(checkpoint: Path, model: nn.Module, guard: Guard, best: Aside) -> int:
    """Put model, optimizer, random state, guard and `best` weights back; returns the step.

    Raises Mistake when the checkpoint belongs to another method or model.
    """
    weights = load_file(checkpoint / _WEIGHTS)
    ours = dict(trained(model))
    if weights.keys() != ours.keys() or any(weights[name].shape != ours[name].shape for name in ours):
        raise Mistake(
            f"{checkpoint}: made with another model or method; choose another output_dir or remove the folder"
        )
    for name, parameter in ours.items():
        parameter.data.copy_(weights[name])
    if (method := attached(model)) is not None and (checkpoint / _MEMORY).exists():
        device = str(next(model.parameters()).device)
        method.memory.update(load_file(checkpoint / _MEMORY, device=device))
    tensors = load_file(checkpoint / _OPTIMIZER)
    torch.set_rng_state(tensors.pop("rng"))
    if (rng := tensors.pop("cuda_rng", None)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(rng)
    told = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    optimizers.restore(guard.optimizer, tensors, told["optimizer"])
    guard.losses.extend(told["losses"])
    guard.bad = told["bad"]
    guard.keep(told["step"])
    if (checkpoint / _BEST).exists():
        best.read(checkpoint / _BEST)
    return int(told["step"])


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-[0-9]*"))


def _random_state() -> dict[str, Tensor]:
    """Torch's random numbers, of the CPU and of the GPU where there is one: dropout draws from them."""
    gpu = {"cuda_rng": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"rng": torch.get_rng_state(), **gpu}

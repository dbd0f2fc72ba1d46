"""Merge: what was learned becomes part of the base's weights: a plain model, and how far its logits moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Precision, Project
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_folder
from tunesmith.core.progress import say
from tunesmith.core.records import Encoded, Message
from tunesmith.core.rooms import choice
from tunesmith.evaluation.forgetting import replay_prompts
from tunesmith.recipes import _artifacts
from tunesmith.recipes._work import Model

if TYPE_CHECKING:
    from torch import Tensor

_TOLD = "merge.json"


def merge(
    artifact: str | Path,
    *,
    project: Project | None = None,
    precision: Precision = "auto",
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Merge an artifact into the base it was made on, and return what `merge.json` in the new model's folder holds.

    A quantized base is merged as it was multiplied: its numbers made whole, plus the update, in float32, then stored at
    the precision of products. Adapted and merged model read the same general prompts; the difference of their logits is
    told. The model lies in `output_dir`, by default `merged` beside the artifact. Raises Mistake for a prompt and for a
    method that cannot be merged.
    """
    import torch

    from tunesmith.engine.quantized import dequantize
    from tunesmith.methods import _attachment, _state
    from tunesmith.models.save import write_model

    place = _artifacts.find(artifact)
    folder = Path(output_dir) if output_dir else place.with_name("merged")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _TOLD).exists():
        raise Mistake(f"{folder}: holds other files already; expected a new folder; choose another --output-dir")
    model, _, prompting = _artifacts.open_artifact(place, project, precision)
    live, stored = model.loaded.model, model.prepared.quantization
    there = _attachment.attached(live)
    if there is None:
        raise Mistake(f"{place}: is a prompt, which has no weights to merge; expected an adapter or tuned weights")
    method = choice("methods", there.method)
    if not method.MERGEABLE:
        raise Mistake(
            f"{place}: {there.method} stands beside the base and cannot become part of its weights; "
            "expected a method such as lora; use the artifact as it is"
        )
    before = _logits(model)
    dequantize(live, torch.float32)
    _state.merge(method, live)
    after = _logits(model)
    told = {
        "model": str(folder),
        "method": there.method,
        "base": model.loaded.name,
        "base_identity": model.loaded.identity,
        "base_quantization": stored,
        "dtype": str(model.prepared.dtype).removeprefix("torch."),
        "largest_logit_difference": float((after - before).abs().max()),
        "mean_logit_difference": float((after - before).abs().mean()),
        "same_likeliest_token": float((after.argmax(-1) == before.argmax(-1)).double().mean()),
        "prompts": len(before),
        "command": f'tunesmith generate --model {folder} "your text"',
    }
    with atomic_folder(folder, remedy="choose another --output-dir") as new:
        write_model(live, model.loaded.tokenizer, new, dtype=model.prepared.dtype)
        _artifacts.write_json(new / _TOLD, told)
    if prompting.shots or prompting.offsets:
        say(f"{folder}: the artifact's worked examples and offsets are no weights and stay with {place}")
    return told


def _logits(model: Model) -> Tensor:
    """What follows each of the general prompts, `[prompts, vocabulary]`, float32 on the CPU."""
    import torch

    from tunesmith.engine.forward import target_logits
    from tunesmith.engine.packing import pack

    template = model.template
    end = next(iter(template.end_ids))
    found = []
    with torch.inference_mode():
        for prompt in replay_prompts()[:32]:
            ids = template.prompt((Message("user", prompt),))
            row = Encoded((*ids, end), (*[0.0] * len(ids), 1.0))
            found.append(target_logits(model.prepared, pack([row]).to(model.prepared.device)).cpu())
    return torch.cat(found)

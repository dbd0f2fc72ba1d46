"""The additive family from task file to artifact: trained, answered with, opened again, and the same in peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.core.records import Encoded, Labelled
from tunesmith.core.rooms import choice
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.recipes.generate import speaker as open_speaker

ToyTask = Callable[..., dict[str, Any]]
METHODS: list[dict[str, Any]] = [
    {"name": "ia3"},
    {"name": "bottleneck", "placement": "houlsby", "reduction_factor": 4},
    {"name": "prefix", "num_virtual_tokens": 5},
    {"name": "p_tuning", "num_virtual_tokens": 5, "encoder_reparameterization_type": "LSTM"},
]


@pytest.mark.parametrize("method", METHODS, ids=[str(keys["name"]) for keys in METHODS])
# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_from_task_file_to_artifact(
    method: dict[str, Any],
    toy_task: ToyTask,
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tunesmith.train(toy_task(output_dir="runs/one", method=method, learning_rate=0.05, max_steps=8))
    losses = [point["loss"] for point in result["curve"]]
    assert losses[-1] < losses[0]

    speaker = open_speaker(artifact=Path("runs/one"), project=tunesmith.load("runs/one/config.yaml"))
    question = Labelled("the film was wonderful 3", "positive")
    ids = speaker.answerer.template.prompt(speaker.answerer.prompts([question], speaker.prompting)[0])
    batch = pack([Encoded((*ids, 0), (*([0.0] * len(ids)), 1.0))], prefix=speaker.prompting.prefix)
    with torch.no_grad():
        ours = logits(speaker.answerer.prepared, batch, torch.arange(len(batch.tokens)))[-len(ids) :]
        plain, theirs = _in_transformers(toy_folder, ids, choice("methods", method["name"]).PEFT_TYPE is not None)
    assert (ours - plain).abs().max() > 0.1
    if theirs is not None:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def _in_transformers(folder: Path, ids: Any, known_to_peft: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits of the toy without and with the artifact, through peft where it has the method."""
    import peft
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = base(input_ids=torch.tensor([ids])).logits[0]
    if not known_to_peft:
        return plain, None
    tuned = peft.PeftModel.from_pretrained(base, "runs/one/artifact")
    return plain, tuned(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]

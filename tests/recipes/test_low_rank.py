"""The low-rank family from a task file to an artifact that loads, in ours and in peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import tunesmith
from tunesmith.methods import _artifact, adalora
from tunesmith.models.load import load

IDS = torch.tensor([[5, 81, 2, 300, 17]])
METHODS: list[dict[str, Any]] = [
    {"name": "lora", "r": 4, "init": "pissa", "loraplus_lr_ratio": 4},
    {"name": "lora", "r": 4, "target_modules": ["embed_tokens", "v_proj"], "rank_pattern": {"v_proj": 8}},
    {"name": "dora", "r": 4},
    {"name": "adalora", "init_r": 6, "target_r": 4},
    {"name": "vera", "r": 32},
]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")  # see parity
@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_it_learns_and_its_artifact_is_the_same_in_peft(
    method: dict[str, Any], toy_task: Callable[..., dict[str, Any]], toy_folder: Path
) -> None:
    rate = 0.1 if method["name"] == "vera" else 0.01
    done = tunesmith.train(toy_task(method=method, max_steps=30, learning_rate=rate))
    losses = [point["validation"] for point in done["curve"]]
    assert losses[-1] < 0.8 * losses[0]
    model = load(str(toy_folder)).model.float()
    base = model(input_ids=IDS).logits
    _, config = _artifact.load(Path("runs/toy/artifact"), model)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(toy_folder, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(theirs, Path("runs/toy/artifact"))
    torch.testing.assert_close(model(input_ids=IDS).logits, loaded(input_ids=IDS).logits, rtol=0, atol=1e-5)
    assert (model(input_ids=IDS).logits - base).abs().max() > 0.1
    if isinstance(config, adalora.Config):
        assert 0 < sum(config.rank_pattern.values()) <= 4 * len(config.rank_pattern)

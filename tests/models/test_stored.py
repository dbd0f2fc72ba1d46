from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.models.stored import stored_weight


def test_a_weight_as_the_file_holds_it(toy_model: Callable[..., Any], tmp_path: Path) -> None:
    model = toy_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20kB")  # in several files
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for path in ("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj", "model.embed_tokens"):
        assert torch.equal(stored_weight(tmp_path, path), model.get_submodule(path).weight)


def test_a_body_saved_without_the_name_it_has_below_a_head(toy_encoder: Callable[..., Any], tmp_path: Path) -> None:
    body = toy_encoder("bert", "Model")
    body.save_pretrained(tmp_path)
    path = "encoder.layer.0.attention.self.query"
    assert torch.equal(stored_weight(tmp_path, f"bert.{path}"), body.get_submodule(path).weight)


def test_what_is_not_there_is_told(toy_model: Callable[..., Any], tmp_path: Path) -> None:
    toy_model("llama").save_pretrained(tmp_path)
    with pytest.raises(Mistake, match=r"have no weight of model\.layers\.9\.up; expected model\.layers\.9\.up\.weight"):
        stored_weight(tmp_path, "model.layers.9.up")

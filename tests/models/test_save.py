from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.models.load import load
from tunesmith.models.save import check_finite, save_model


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2"])
def test_saved_and_loaded_is_the_same(
    kind: str, toy_model: Callable[[str], Any], toy_tokenizer: Any, tmp_path: Path
) -> None:
    model = toy_model(kind)
    folder = save_model(model, toy_tokenizer, tmp_path / "whole")
    loaded = load(str(folder))
    ids = torch.tensor([toy_tokenizer("The plot was dull.").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert loaded.tokenizer.chat_template == toy_tokenizer.chat_template
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_is_not_finite_is_never_written(
    bad: float, toy_llama: Any, toy_tokenizer: Any, tmp_path: Path
) -> None:
    with torch.no_grad():
        toy_llama.model.layers[1].mlp.up_proj.weight[3, 4] = bad
    with pytest.raises(Mistake, match=r"NaN or infinite values in model\.layers\.1\.mlp\.up_proj\.weight; expected"):
        save_model(toy_llama, toy_tokenizer, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []


def test_many_weights_that_are_not_finite_are_counted() -> None:
    with pytest.raises(Mistake, match="in a, b, c and 2 more"):
        check_finite({name: torch.tensor(math.nan) for name in "abcde"}, "adapter")
    check_finite({"ids": torch.tensor([1, 2]), "empty": torch.zeros(0)}, "adapter")


def test_weights_can_be_stored_narrower_and_the_model_is_not_touched(
    toy_llama: Any, toy_tokenizer: Any, tmp_path: Path
) -> None:
    save_model(toy_llama, toy_tokenizer, tmp_path / "narrow", dtype=torch.bfloat16)
    loaded = load(str(tmp_path / "narrow")).model
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in toy_llama.parameters()} == {torch.float32}
    assert toy_llama.config.dtype == torch.float32
    stored = dict(loaded.named_parameters())
    for name, weight in toy_llama.named_parameters():
        torch.testing.assert_close(stored[name], weight.bfloat16(), rtol=0, atol=0)
    bytes_written = (tmp_path / "narrow" / "model.safetensors").stat().st_size
    assert bytes_written < 2.2 * sum(weight.numel() for weight in toy_llama.parameters())  # tied weights written once


def test_a_wrapped_model_is_refused_because_it_would_load_as_its_base(
    toy_llama: Any, toy_tokenizer: Any, tmp_path: Path
) -> None:
    projection = toy_llama.model.layers[0].mlp.up_proj
    projection.lora_A = torch.nn.Linear(32, 4, bias=False)
    with pytest.raises(RuntimeError, match="not a plain LlamaForCausalLM, merge or detach first"):
        save_model(toy_llama, toy_tokenizer, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_mistake(toy_llama: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="expected a writable folder; set output_dir"):
        save_model(toy_llama, toy_tokenizer, tmp_path / "file" / "whole")

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.engine.prepare import prepare
from tunesmith.methods import _attachment, full


def test_a_tied_head_stays_tied_and_counts_once(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=True).bfloat16()
    full.attach(model, full.Config())
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.dtype == torch.float32
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    full.detach(model)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_a_large_base_comes_back_from_its_file(toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, though the file has no name any more, and end to end where it lay so."""
    monkeypatch.setattr(_attachment, "LARGE_MB", 0)
    model = prepare(toy_model("llama").requires_grad_(False), "bfloat16").model
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    full.attach(model, full.Config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    full.detach(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    own = model.model.layers[0].mlp
    assert own.gate_proj.weight.untyped_storage().data_ptr() == own.up_proj.weight.untyped_storage().data_ptr()
    with torch.no_grad():
        own.gate_proj.weight.add_(1)  # the file is nobody else's


def test_a_quantized_model_is_refused_and_left_as_it_was(toy_llama: Any) -> None:
    quantized = toy_llama.model.layers[1].mlp.up_proj
    quantized.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.int8), requires_grad=False)
    before = [(p.data_ptr(), p.dtype, p.requires_grad) for p in toy_llama.parameters()]
    with pytest.raises(Mistake, match=r"full cannot train model\.layers\.1\.mlp\.up_proj\.weight, .*int8"):
        full.attach(toy_llama, full.Config())
    assert [(p.data_ptr(), p.dtype, p.requires_grad) for p in toy_llama.parameters()] == before
    assert _attachment.attached(toy_llama) is None

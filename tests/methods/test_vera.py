from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _artifact, vera

IDS = torch.tensor([[5, 81, 2, 300, 17]])


def attached(model: Any, **keys: Any) -> vera.Config:
    config = vera.Config(**{"r": 8, **keys})
    vera.attach(model, config)
    return config


def test_the_update_is_b_between_the_shared_matrices() -> None:
    """Λ_b B Λ_d A with b = (1, 2), B = (1, 1)ᵀ, d = 3, A = (1, 0): the rows (3, 0) and (6, 0)."""
    base = nn.Linear(2, 2, bias=False)
    shared = vera.Projections(torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1.0], [1.0], [9.0]]))  # wider than needed
    made = vera.VeraLinear(base, shared, vera.Config(r=1, d_initial=3.0))
    x = torch.randn(4, 2)
    assert torch.equal(made(x), base(x))
    made.vera_lambda_b.data = torch.tensor([1.0, 2.0])
    delta = torch.tensor([[3.0, 0.0], [6.0, 0.0]])
    torch.testing.assert_close(made(x), base(x) + x @ delta.T)
    torch.testing.assert_close(made.merged()["weight"], base.weight + delta)


def test_the_matrices_are_drawn_from_the_key_and_shared(toy_model: Any) -> None:
    drawn = []
    for key, seed in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(seed)
        model = toy_model("llama")
        attached(model, projection_prng_key=key)
        layers = [layer for layer in model.modules() if isinstance(layer, vera.VeraLinear)]
        assert len({id(layer.shared) for layer in layers}) == 1
        drawn.append(layers[0].shared)
    assert drawn[0].a.shape == (8, 64)  # as wide as the widest, the feed-forward layer
    assert drawn[0].b.shape == (64, 8)
    assert torch.equal(drawn[0].a, drawn[1].a)
    assert not torch.equal(drawn[0].a, drawn[2].a)
    assert drawn[0].a.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)


def test_only_the_vectors_are_trained(toy_llama: Any) -> None:
    attached(toy_llama)
    shapes = {tensor.dim() for tensor in vera.state(toy_llama).values()}
    assert shapes == {1}
    assert sum(t.numel() for t in vera.state(toy_llama).values()) == sum(
        p.numel() for p in toy_llama.parameters() if p.requires_grad
    )


def test_saved_matrices_go_before_those_of_the_key(toy_model: Any, tmp_path: Path) -> None:
    """Another machine's generator may draw others: what is in the file counts."""
    model = toy_model("llama")
    config = attached(model)
    a, _ = vera._shared(model)
    a += 1.0
    for name, parameter in model.named_parameters():
        if name.endswith("lambda_b"):
            nn.init.normal_(parameter)
    _artifact.save(tmp_path / "artifact", model, "vera", config, _artifact.Origin("toy"))
    assert "base_model.vera_A" in load_file(tmp_path / "artifact" / "adapter_model.safetensors")
    other = toy_model("llama")
    _artifact.load(tmp_path / "artifact", other)
    assert torch.equal(other(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_without_the_matrices_the_file_is_small(toy_model: Any, tmp_path: Path) -> None:
    model = toy_model("llama")
    config = attached(model, save_projection=False)
    _artifact.save(tmp_path / "artifact", model, "vera", config, _artifact.Origin("toy"))
    assert load_file(tmp_path / "artifact" / "adapter_model.safetensors").keys() == vera.state(model).keys()


def test_an_adapter_without_its_vectors_is_refused() -> None:
    with pytest.raises(Mistake, match="no vera_lambda_b"):
        vera.from_peft({"r": 2, "target_modules": ["q_proj"]}, ["base_model.vera_A"])
    with pytest.raises(Mistake, match="bias: 'all'"):
        vera.from_peft({"r": 2, "bias": "all"}, ["base_model.model.x.vera_lambda_b"])

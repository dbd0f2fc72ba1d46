"""LoRA with another start, other ranks by layer, and in other places than linear layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.methods import _artifact, _attachment, lora
from tunesmith.methods._low_rank_places import LoraEmbedding, LoraExperts

IDS = torch.tensor([[5, 81, 2, 300, 17]])
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
ToyModel = Callable[..., Any]


def attached(model: Any, **keys: Any) -> lora.Config:
    torch.manual_seed(0)
    config: lora.Config = choose("methods", "lora", **keys).config
    lora.attach(model, config)
    return config


def move(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def pissa(weight: Tensor, **keys: Any) -> lora.LoraLinear:
    base = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    base.weight.data = weight
    base.requires_grad_(False)
    return lora.LoraLinear(base, lora.Config(init="pissa", **keys))


def test_pissa_starts_as_the_strongest_directions() -> None:
    """diag(8, 2) has the singular values 8 and 2; with s = alpha / r = 2, ``s B A`` of rank 1 is diag(8, 0)."""
    made = pissa(torch.diag(torch.tensor([8.0, 2.0])), r=1, alpha=2)
    assert made.lora_A.abs().tolist() == [[2.0, 0.0]]  # sqrt(8 / 2)
    assert made.lora_B.abs().tolist() == [[2.0], [0.0]]
    torch.testing.assert_close(made.scaling * made.lora_B @ made.lora_A, torch.diag(torch.tensor([8.0, 0.0])))


def test_pissa_is_the_split_weight_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    made, x = pissa(torch.randn(5, 6), r=2, alpha=3), torch.randn(4, 6)
    assert torch.equal(made(x), made.base(x))
    rest = made.weight.detach() - made.scaling * made.lora_B.detach() @ made.lora_A.detach()
    move(made)
    a, b = (factor.detach().clone().requires_grad_() for factor in (made.lora_A, made.lora_B))
    theirs = x @ rest.T + made.scaling * x @ a.T @ b.T
    torch.testing.assert_close(made(x), theirs)
    made(x).square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(made.lora_A.grad, a.grad)
    torch.testing.assert_close(made.lora_B.grad, b.grad)


@pytest.mark.parametrize(
    "keys", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"o_proj": 3}}]
)
def test_pissa_is_written_as_a_plain_lora_of_twice_the_rank(
    keys: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    model, other = toy_model("llama"), toy_model("llama")
    config = attached(model, init="pissa", r=4, alpha=6, **keys)
    move(model)
    _artifact.save(tmp_path / "artifact", model, "lora", config, _artifact.Origin("toy"))
    name, read = _artifact.load(tmp_path / "artifact", other)
    assert isinstance(read, lora.Config)
    assert (name, read.init, read.r) == ("lora", "kaiming", 8)
    assert read.rank_pattern == {path: 2 * rank for path, rank in config.rank_pattern.items()}
    same(logits(other), logits(model))


def test_pissa_wants_directions_and_linear_layers(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"needs a layer with 17 directions; \S*k_proj has 16"):
        attached(toy_llama, init="pissa", r=17)
    with pytest.raises(Mistake, match=r"pissa starts linear layers alone; model.embed_tokens is none"):
        attached(toy_llama, init="pissa", r=4, target_modules=["q_proj", "embed_tokens"])
    assert _attachment.attached(toy_llama) is None


def test_ranks_and_strengths_by_layer(toy_llama: Any) -> None:
    keys = {"rank_pattern": {"q_proj": 2, r"layers\.1\..*v_proj": 8}, "alpha_pattern": {"mlp.up_proj": 64}}
    attached(toy_llama, r=4, alpha=8, **keys)
    found = {
        path.removeprefix("model.layers."): (len(layer.lora_A), layer.scaling)
        for path, layer in toy_llama.named_modules()
        if isinstance(layer, lora.LoraLinear)
    }
    assert found["0.self_attn.q_proj"] == found["1.self_attn.q_proj"] == (2, 4.0)
    assert (found["0.self_attn.v_proj"], found["1.self_attn.v_proj"]) == ((4, 2.0), (8, 1.0))
    assert found["0.mlp.up_proj"] == (4, 16.0)


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_for_no_layer_is_a_mistake(key: str, toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=f"method.{key}: 'q_prj' matches no target; did you mean 'q_proj'"):
        attached(toy_llama, **{key: {"q_prj": 2}})
    assert _attachment.attached(toy_llama) is None


def test_lora_plus_lets_b_learn_faster(toy_llama: Any) -> None:
    attached(toy_llama, r=2, loraplus_lr_ratio=16, target_modules=["q_proj", "embed_tokens"])
    slow, fast = lora.param_groups(toy_llama)
    names = {id(parameter): name for name, parameter in toy_llama.named_parameters()}
    assert (slow.get("scale", 1.0), fast["scale"]) == (1.0, 16.0)
    assert {names[id(p)].rpartition(".")[2] for p in fast["params"]} == {"lora_B"}
    assert {names[id(p)].rpartition(".")[2] for p in slow["params"]} == {
        "lora_A", "lora_embedding_A", "lora_embedding_B"
    }  # fmt: skip


def test_without_lora_plus_there_is_one_group_of_all_that_trains(toy_llama: Any) -> None:
    attached(toy_llama, r=2)
    (only,) = lora.param_groups(toy_llama)
    assert only.get("scale", 1.0) == 1.0
    assert [id(p) for p in only["params"]] == [id(p) for p in toy_llama.parameters() if p.requires_grad]


def test_an_embedding_gets_its_update_row_by_row() -> None:
    torch.manual_seed(0)
    base = nn.Embedding(7, 3)
    made = LoraEmbedding(base, lora.Config(r=2, alpha=6), "")
    ids = torch.tensor([[1, 4], [6, 4]])
    assert torch.equal(made(ids), base(ids))
    nn.init.normal_(made.lora_embedding_A)
    rows = base.weight + 3.0 * (made.lora_embedding_B @ made.lora_embedding_A).T
    torch.testing.assert_close(made(ids), rows[ids])
    torch.testing.assert_close(made.merged()["weight"], rows)


def test_an_embedding_that_scales_its_rows_scales_the_update() -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

    made = LoraEmbedding(Gemma3TextScaledWordEmbedding(7, 3, 0, embed_scale=5.0), lora.Config(r=2), "")
    nn.init.normal_(made.lora_embedding_A)
    ids = torch.tensor([1, 4])
    torch.testing.assert_close(made(ids), 5.0 * made.merged()["weight"][ids])


def test_embeddings_merge_where_no_head_shares_them(toy_model: ToyModel) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    attached(model, r=2, target_modules=["embed_tokens", "q_proj"])
    move(model)
    adapted = logits(model)
    lora.merge(model)
    same(logits(model), adapted)
    tied = toy_model("llama")
    attached(tied, r=2, target_modules=["embed_tokens"])
    with pytest.raises(Mistake, match=r"model\.embed_tokens shares its weight"):
        lora.merge(tied)


def test_experts_get_an_update_each(toy_experts: Callable[[], Any]) -> None:
    """The delta of expert e is ``s B_e A_e``, the e-th of the stack's A and B."""
    model = toy_experts()
    base = logits(model)
    attached(model, r=2, alpha=3, target_modules=[], target_parameters=EXPERTS)
    assert torch.equal(logits(model), base)
    move(model)
    found = [layer for layer in model.modules() if isinstance(layer, LoraExperts)]
    assert len(found) == 2
    a, b = found[0].lora_A["down_proj"], found[0].lora_B["down_proj"]
    stack: Any = found[0].base.down_proj
    delta = found[0].merged()["down_proj"] - stack
    for expert in range(len(stack)):
        own = 1.5 * b[:, expert :: len(stack)] @ a[2 * expert : 2 * expert + 2]
        torch.testing.assert_close(delta[expert], own)


def test_experts_learn_detach_and_merge(toy_experts: Callable[[], Any]) -> None:
    model = toy_experts()
    base = logits(model)
    attached(model, r=2, target_modules=["q_proj"], target_parameters=EXPERTS)
    move(model)
    adapted = logits(model)
    adapted.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    lora.merge(model)
    same(logits(model), adapted)
    assert not torch.allclose(adapted, base, atol=1e-2)

    model = toy_experts()
    before = {name: id(part) for name, part in [*model.named_modules(), *model.named_parameters()]}
    attached(model, r=2, target_modules=[], target_parameters=EXPERTS)
    move(model)
    lora.detach(model)
    assert torch.equal(logits(model), base)
    assert before == {name: id(part) for name, part in [*model.named_modules(), *model.named_parameters()]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target_parameters": ["experts.gate_proj"]}, "no matrix is called 'experts.gate_proj'"),
        ({"target_parameters": EXPERTS, "dropout": 0.1}, "target_parameters cannot leave inputs out"),
        ({"target_parameters": ["q_proj.weight"]}, r"q_proj is among target_modules already"),
        ({"target_parameters": EXPERTS, "init": "pissa"}, r"experts is none; type init kaiming"),
        ({"target_modules": []}, "got an empty list"),
    ],
)
def test_stacks_that_cannot_be_had_are_refused(
    keys: dict[str, Any], message: str, toy_experts: Callable[[], Any]
) -> None:
    model = toy_experts()
    with pytest.raises(Mistake, match=message):
        attached(model, r=2, **keys)
    assert _attachment.attached(model) is None


@pytest.fixture
def toy_experts(toy_model: ToyModel) -> Callable[[], Any]:
    """A toy Mixtral: four experts a layer, as stacks, two of which take each token."""
    return lambda: toy_model("mixtral", num_local_experts=4, num_experts_per_tok=2)

"""Our decoder layers compute what transformers' compute, whatever lies beside them, and keep little for it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine import head, layer, memory, products, tiles
from tunesmith.engine.forward import forward, logits
from tunesmith.engine.memory import Shape, _saved_bytes
from tunesmith.engine.packing import PackedBatch, pack
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.methods._attachment import trainable

pytestmark = pytest.mark.usefixtures("arithmetic")
OURS = ("llama", "mistral", "qwen2", "qwen3")
TARGETS: tuple[Any, ...] = ("all-linear", ["q_proj", "v_proj"], ["up_proj"], ["o_proj", "down_proj"])


def _batch(seed: int = 4, rows: int = 6, longest: int = 40, targets: float = 1 / 3) -> PackedBatch:
    generator = random.Random(seed)
    stem = [generator.randrange(3, 300) for _ in range(20)]
    made = []
    for _ in range(rows):
        ids = stem + [generator.randrange(3, 300) for _ in range(generator.randrange(2, longest))]
        made.append(Encoded(tuple(ids), (*(float(generator.random() < targets) for _ in ids[1:]), 1.0)))
    return pack(made)


def _adapted(model: Any, precision: Any = "float32", **settings: Any) -> Prepared:
    """The model with a LoRA adapter that does something: fresh ones are zero, and so are their gradients."""
    prepared = prepare(model.requires_grad_(False), precision)
    method = choose("methods", "lora", **{"r": 4, **settings})
    torch.manual_seed(0)
    method.module.attach(model, method.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return prepared


def _learned(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and the gradient of every weight that trains, of their weighted sum."""
    prepared.model.train()
    found = forward(prepared, batch).logprobs
    (found * batch.weights).sum().backward()
    grads = {name: p.grad.clone() for name, p in prepared.model.named_parameters() if p.grad is not None}
    prepared.model.zero_grad()
    return found.detach(), grads


def _assert_same(one: dict[str, Tensor], other: dict[str, Tensor], rounding: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    assert one
    for name, grad in one.items():
        largest = float(other[name].abs().max())
        assert largest > 0, name
        torch.testing.assert_close(grad, other[name], rtol=0, atol=rounding * largest, msg=name)


@pytest.mark.parametrize("kind", OURS)
def test_layers_of_the_family_are_ours_and_have_the_same_names(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    names = [name for name, _ in model.named_parameters()]
    assert prepare(model, "float32").ours
    assert all(type(one) is layer.DecoderLayer for one in model.model.layers)
    assert [name for name, _ in model.named_parameters()] == names
    assert prepare(model, "float32").ours  # a second time changes nothing


@pytest.mark.parametrize("kind", ["gemma2", "phi3", "gpt2"])
def test_other_models_keep_their_own_layers(kind: str, toy_model: Callable[..., Any]) -> None:
    assert not prepare(toy_model(kind), "float32").ours


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("kind", OURS)
def test_one_product_with_its_adapters_is_the_layers_one_by_one(
    kind: str, targets: Any, toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, batch = _adapted(toy_model(kind), target_modules=targets), _batch()
    together, grads = _learned(prepared, batch)
    monkeypatch.setattr(products, "_product", lambda layers: None)
    alone, wanted = _learned(prepared, batch)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    _assert_same(grads, wanted)


@pytest.mark.parametrize("kind", OURS)
def test_weights_that_train_learn_as_in_layers_one_by_one(
    kind: str, toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model(kind)
    prepared, batch = prepare(model, "float32"), _batch()
    choose("methods", "full").module.attach(model, choose("methods", "full").config)
    kept = _saved_bytes(prepared, batch)
    together, grads = _learned(prepared, batch)
    monkeypatch.setattr(products, "_product", lambda layers: None)
    monkeypatch.setattr(head, "fits", lambda head: False)
    alone, wanted = _learned(prepared, batch)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    _assert_same(grads, wanted)
    assert kept < 0.9 * _saved_bytes(prepared, batch)


def test_products_are_joined_where_they_can_be(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama").requires_grad_(False)
    prepare(model, "float32")
    own = model.model.layers[0].self_attn
    layers = [own.q_proj, own.k_proj, own.v_proj]
    found = products._product(layers)
    assert found is not None
    torch.testing.assert_close(found[0].weight, torch.cat([one.weight for one in layers]), rtol=0, atol=0)
    assert found[0].weight.data_ptr() == own.q_proj.weight.data_ptr()
    own.k_proj.weight.requires_grad_(True)
    assert products._product(layers) is None


def test_dropout_is_left_to_the_adapter_itself(toy_model: Callable[..., Any]) -> None:
    prepared, batch = _adapted(toy_model(), dropout=0.5), _batch()
    torch.manual_seed(1)
    first, _ = _learned(prepared, batch)
    second, _ = _learned(prepared, batch)
    assert not torch.equal(first, second)
    prepared.model.eval()
    assert torch.equal(forward(prepared, batch).logprobs, forward(prepared, batch).logprobs)


@pytest.mark.parametrize("kind", OURS)
def test_in_bfloat16_it_is_as_near_to_float32_as_the_layers_one_by_one(
    kind: str, toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = toy_model(kind), _batch(rows=20)
    exact, wanted = _learned(_adapted(copy.deepcopy(model), alpha=4), batch)
    prepared = _adapted(model, "bfloat16", alpha=4)
    together, grads = _learned(prepared, batch)
    monkeypatch.setattr(products, "_product", lambda layers: None)
    alone, single = _learned(prepared, batch)
    assert 0 < float((together - exact).square().mean()) < 1.5 * float((alone - exact).square().mean())
    for name, grad in grads.items():
        # Gradients between products are bfloat16 here and float32 there, so a little more is lost on the way.
        apart, usual = (float((one - wanted[name]).square().mean()) for one in (grad, single[name]))
        assert apart < 4 * usual, name


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_tiles_and_weights_computed_again_change_nothing(
    kind: str, toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of up to 60 tokens in tiles of 8, of which all but the first few look at more keys than are kept."""
    settings = {"sliding_window": 12} if kind == "mistral" else {}
    prepared, batch = _adapted(toy_model(kind, **settings)), _batch()
    found, grads = _learned(prepared, batch)
    monkeypatch.setattr(tiles, "TILE", 8)
    monkeypatch.setattr(tiles, "KEPT_KEYS", 32)
    kept = [span.kept for span in tiles.spans(batch.segments)]
    assert len(kept) > len(batch.segments)
    assert any(kept)
    assert not all(kept)
    tiled, again = _learned(prepared, batch)
    torch.testing.assert_close(tiled, found, rtol=0, atol=1e-5)
    _assert_same(again, grads)


def test_layers_computed_again_change_nothing_and_keep_little(toy_model: Callable[..., Any]) -> None:
    from dataclasses import replace

    prepared, batch = _adapted(toy_model()), _batch()
    again = replace(prepared, recompute=True)
    found, grads = _learned(prepared, batch)
    other, same = _learned(again, batch)
    assert torch.equal(found, other)
    for name, grad in grads.items():
        assert torch.equal(grad, same[name]), name
    assert _saved_bytes(again, batch) < _saved_bytes(prepared, batch) / 3


def test_what_is_kept_is_what_backward_needs(toy_model: Callable[..., Any], arithmetic: str) -> None:
    """Bytes a layer keeps of a token in bfloat16, counted by hand from the sizes of its products."""
    model = toy_model("llama")
    config = model.config
    prepared = _adapted(model, "bfloat16")
    one, two = _batch(rows=1, longest=3, targets=1), _batch(rows=6, targets=1)
    shapes = Shape.of(one), Shape.of(two)
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    qkv = (heads + 2 * config.num_key_value_heads) * size
    twice_normed = 2 * (4 * hidden + 4)  # its input and its scale
    # Turned queries, keys and values, and what came of them; a number a softmax, or all of its weights.
    looked = 4 * qkv + 2 * heads * size + 4 * heads if arithmetic == "kernels" else 2 * qkv + 2 * heads * size
    mlp = 2 * 2 * config.intermediate_size  # gate and up
    low = 2 * 4 * 7
    token = twice_normed + looked + mlp + low
    pair = 0 if arithmetic == "kernels" else 2 * heads
    tokens, pairs = shapes[1].tokens - shapes[0].tokens, shapes[1].pairs - shapes[0].pairs
    last = (4 + 4) * hidden * (shapes[1].targets - shapes[0].targets)  # the last norm's input, the head's gradient
    expected = config.num_hidden_layers * (token * tokens + pair * pairs) + last
    assert _saved_bytes(prepared, two) - _saved_bytes(prepared, one) == pytest.approx(expected, rel=0.15)


def test_nothing_is_learned_below_the_lowest_weight_that_trains(toy_model: Callable[..., Any]) -> None:
    prepared = _adapted(toy_model(), target_modules=["model.layers.1.mlp.down_proj"])
    assert trainable(prepared.model).names == tuple(f"model.layers.1.mlp.down_proj.lora_{side}" for side in ("A", "B"))
    seen: list[str] = []
    watched = {
        "below": prepared.model.model.layers[0].mlp.act_fn,
        "above": prepared.model.model.norm,
    }
    for name, module in watched.items():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: seen.append(name) if output.requires_grad else None
        )
    _learned(prepared, _batch())
    assert seen == ["above"]


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("block", [3, 256])
def test_log_probabilities_without_logits(block: int, trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "BLOCK", block)
    torch.manual_seed(0)
    hidden, weight = torch.randn(10, 16, requires_grad=True), torch.randn(50, 16, requires_grad=trains)
    learn = (hidden, weight) if trains else (hidden,)
    at, labels = torch.tensor([9, 0, 0, 3, 4, 5, 9, 1]), torch.tensor([3, 49, 3, 0, 17, 17, 3, 8])
    upstream = torch.randn(8)
    layer_of_ours = SimpleNamespace(weight=weight, compute=torch.float32)
    found, correct = head.label_logprobs(hidden, layer_of_ours, at, labels)
    given = torch.autograd.grad(found @ upstream, learn)
    scores = hidden @ weight.T
    wanted = torch.log_softmax(scores, dim=-1)[at, labels]
    expected = torch.autograd.grad(wanted @ upstream, learn)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    assert torch.equal(correct, scores.argmax(-1)[at] == labels)


def test_a_head_that_trains_learns_too(toy_model: Callable[..., Any]) -> None:
    """A head of its own (not tied) with an adapter goes the usual way."""
    model = toy_model("llama", tie_word_embeddings=False)
    prepared = _adapted(model, target_modules=["lm_head"])
    assert not head.fits(prepared.head)
    _, grads = _learned(prepared, _batch())
    assert set(grads) == {"lm_head.lora_A", "lm_head.lora_B"}


def test_the_last_layer_gives_only_what_is_asked_for(toy_model: Callable[..., Any]) -> None:
    prepared, batch = prepare(toy_model(), "float32"), _batch()
    widths: list[int] = []
    prepared.model.model.layers[-1].mlp.down_proj.register_forward_hook(lambda *_: widths.append(0))
    every = logits(prepared, batch, torch.arange(len(batch.tokens)))
    some = logits(prepared, batch, batch.index)
    torch.testing.assert_close(some, every[batch.index], rtol=0, atol=1e-5)
    seen = []
    prepared.model.model.norm.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
    logits(prepared, batch, batch.index[:5])
    assert seen == [32]  # filled up from 5


def test_without_a_packed_batch_it_says_how_to_call_it(toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model(), "float32")
    with pytest.raises(RuntimeError, match=r"forward\(model, batch\)"):
        prepared.model(input_ids=torch.tensor([[5, 6]]))


def test_counting_what_is_kept_leaves_nothing_behind(toy_model: Callable[..., Any]) -> None:
    """An output that its own node keeps, handed to a hook as it is, keeps the whole graph alive for ever."""
    import gc

    prepared = _adapted(toy_model())
    gc.collect()
    before = sum(type(one) is tiles.Context for one in gc.get_objects())
    memory.count(prepared)
    gc.collect()
    assert sum(type(one) is tiles.Context for one in gc.get_objects()) == before

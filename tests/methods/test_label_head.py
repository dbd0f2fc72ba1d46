"""features and dense_head: heads of our own over a frozen body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import pooling
from tunesmith.engine.packing import pack_whole
from tunesmith.engine.prepare import prepare
from tunesmith.methods import dense_head, features
from tunesmith.methods._label_head import head_of

ROWS = [Encoded(tuple(range(20, 20 + n)), (1.0,), labels=((0, n % 2),)) for n in (4, 9, 2, 30)]


def clouds(labels: int, rows: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a centre of their own for each label, on scales that differ a thousandfold."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(rows) % labels
    centres = 3 * torch.randn(labels, 32, generator=generator)
    scale = torch.logspace(-1.5, 1.5, 32)
    return (centres[targets] + torch.randn(rows, 32, generator=generator)) * scale + 5, targets


@pytest.mark.parametrize("labels", [2, 3])
def test_a_solution_is_the_regression_of_scikit_learn(toy_llama: Any, labels: int) -> None:
    from sklearn.linear_model import LogisticRegression

    states, targets = clouds(labels)
    toy_llama.config.num_labels = labels
    features.attach(toy_llama, features.Config())
    features.solve(toy_llama, states, targets, torch.ones(len(states)), seed=0)
    head = head_of(toy_llama)
    assert head is not None
    found = head(states).softmax(-1).detach()
    assert (found.argmax(-1) == targets).all()
    standard = ((states - states.mean(0)) / states.std(0)).double().numpy()
    closest = min(
        float((torch.tensor(one.predict_proba(standard)) - found).abs().max())
        for strength in torch.logspace(-4, 4, 10).tolist()
        for one in [LogisticRegression(C=strength, max_iter=300).fit(standard, targets.numpy())]
    )
    assert closest < 1e-3  # both stop where the gradient is below 1e-4


def test_several_labels_are_each_a_regression(toy_llama: Any) -> None:
    states, targets = clouds(4)
    wanted = torch.stack([targets % 2 == 0, targets < 2], dim=1).float()
    toy_llama.config.num_labels = 2
    features.attach(toy_llama, features.Config())
    features.solve(toy_llama, states, wanted, torch.ones(len(states)), seed=0)
    head = head_of(toy_llama)
    assert head is not None
    assert ((head(states) > 0) == wanted.bool()).all()


def test_too_few_rows_of_a_label_are_told(toy_llama: Any) -> None:
    states, _ = clouds(2)
    features.attach(toy_llama, features.Config())
    with pytest.raises(Mistake, match="a label has fewer than two rows"):
        features.solve(toy_llama, states, (torch.arange(60) == 3).long(), torch.ones(60), seed=0)


@pytest.mark.parametrize("how", ["mean", "last", "first"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "modernbert", "t5"])
def test_pooled_states_are_those_of_transformers(
    toy_model: Callable[..., Any], toy_encoder: Callable[..., Any], kind: str, how: Any
) -> None:
    make = toy_encoder if kind in ("bert", "modernbert") else toy_model
    model, plain = make(kind), make(kind)
    prepared = prepare(model, "float32")
    dense_head.attach(model, dense_head.Config(pooling=how, layer=-1))
    head = head_of(model)
    assert head is not None
    found = pooling.pooled(prepared, pack_whole(ROWS), head)
    body = plain.get_encoder() if plain.config.is_encoder_decoder else plain.base_model
    for row, vector in zip(ROWS, found, strict=True):
        states = body(input_ids=torch.tensor([row.ids])).last_hidden_state[0]
        wanted = {"mean": states.mean(0), "last": states[-1], "first": states[0]}[how]
        torch.testing.assert_close(vector, wanted, rtol=0, atol=1e-5)
    assert torch.equal(pooling.pooled(prepared, pack_whole(ROWS), head), found)


@pytest.mark.parametrize("layer", [1, -2])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_states_of_a_layer_below(
    toy_model: Callable[..., Any], toy_encoder: Callable[..., Any], kind: str, layer: int
) -> None:
    make = toy_encoder if kind == "bert" else toy_model
    model, plain = make(kind), make(kind)
    features.attach(model, features.Config(layer=layer))
    head = head_of(model)
    assert head is not None
    found = pooling.pooled(prepare(model, "float32"), pack_whole(ROWS), head)
    inputs = {"input_ids": torch.tensor([ROWS[1].ids]), "output_hidden_states": True}
    torch.testing.assert_close(found[1], plain.base_model(**inputs).hidden_states[1][0].mean(0), rtol=0, atol=1e-5)


def test_a_layer_that_is_not_there_is_told(toy_llama: Any) -> None:
    features.attach(toy_llama, features.Config(layer=3))
    head = head_of(toy_llama)
    assert head is not None
    with pytest.raises(Mistake, match=r"layer: got 3; expected 1 to 2"):
        pooling.pooled(prepare(toy_llama, "float32"), pack_whole(ROWS), head)


def test_states_are_computed_once_and_kept_on_disk(toy_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = replace(prepare(toy_llama, "float32"), identity="toy identity")
    features.attach(toy_llama, features.Config())
    first = head_of(toy_llama)
    assert first is not None
    found = pooling.remember(prepared, ROWS, first)
    features.detach(toy_llama)
    features.attach(toy_llama, features.Config())
    second = head_of(toy_llama)
    assert second is not None
    monkeypatch.setattr(pooling, "_computed", lambda *_: pytest.fail("computed again"))
    assert torch.equal(pooling.remember(prepared, ROWS, second), found)
    assert torch.equal(pooling.pooled(prepared, pack_whole(ROWS[2:]), second), found[2:])


def test_states_of_a_base_stored_otherwise_are_others(toy_model: Callable[..., Any]) -> None:
    found = []
    for quantization in (None, "int8"):
        model = toy_model("llama").requires_grad_(False)
        prepared = replace(prepare(model, "float32", quantization), identity="one identity, stored in two ways")
        features.attach(model, features.Config())
        head = head_of(model)
        assert head is not None
        found.append(pooling.remember(prepared, ROWS, head))
    assert not torch.equal(*found)


def test_a_layer_without_width_is_told(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"method\.layers: got \[8, 0\]; expected widths of 1 at least"):
        dense_head.attach(toy_llama, dense_head.Config(layers=[8, 0]))

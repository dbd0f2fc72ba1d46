"""A look at the data: every row's own gradient, and what the blocks say of a prompt without its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.survey import Look

ToyModel = Callable[..., Any]
NAMES = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"]
PLACES = ["model.layers.0", "model.layers.1"]


@pytest.fixture
def prepared(toy_model: ToyModel) -> Prepared:
    return prepare(toy_model("llama").requires_grad_(False), "float32")


def state(model: Any) -> list[tuple[bool, Any, bool]]:
    return [(p.requires_grad, p.grad, bool(p._post_accumulate_grad_hooks)) for p in model.parameters()]


def test_a_gradient_is_that_of_a_single_row(
    prepared: Prepared, toy_model: ToyModel, make_rows: Callable[..., list[Encoded]]
) -> None:
    rows = make_rows(3)
    seen: list[tuple[str, Tensor]] = []
    before, drawn = state(prepared.model), torch.get_rng_state()
    Look(prepared, rows, 0).gradients(NAMES, lambda name, gradient: seen.append((name, gradient.clone())), 3)
    assert state(prepared.model) == before
    assert torch.equal(torch.get_rng_state(), drawn)
    plain = toy_model("llama")
    expected = []
    for row in rows:
        scores = plain(input_ids=torch.tensor([row.ids])).logits.log_softmax(-1)[0, :-1]
        chosen = scores.gather(-1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        loss = -(chosen * torch.tensor(row.weights[1:])).sum()
        expected.append(torch.autograd.grad(loss, [plain.get_parameter(name) for name in NAMES]))
    assert len(seen) == 6
    for place, name in enumerate(NAMES):
        found = sorted((gradient for told, gradient in seen if told == name), key=lambda g: float(g.norm()))
        wanted = sorted((one[place] for one in expected), key=lambda g: float(g.norm()))
        for pair in zip(found, wanted, strict=True):
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_features_are_the_mean_over_the_prompt_and_know_no_answer(kind: str, toy_model: ToyModel) -> None:
    places = PLACES if kind == "llama" else ["transformer.h.0", "transformer.h.1"]
    ours = prepare(toy_model(kind).requires_grad_(False), "float32")
    ids = (5, 81, 2, 30, 17)
    rows = [Encoded((*ids, answer, 2), (0.0,) * 5 + (1.0, 1.0)) for answer in (40, 41)]
    features, answers = Look(ours, rows, 0).features(places, 2)
    assert sorted(answers) == ["40 2", "41 2"]
    plain = toy_model(kind)
    seen: dict[str, Tensor] = {}

    def keep(place: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.update({place: output[0] if isinstance(output, tuple) else output})

    for place in places:
        plain.get_submodule(place).register_forward_hook(keep(place))
    plain(input_ids=torch.tensor([ids]))
    for place in places:
        assert features[place].shape == (2, 32)
        for vector in features[place]:
            torch.testing.assert_close(vector, seen[place][0].mean(dim=0).detach(), rtol=1e-4, atol=1e-5)


def test_an_encoders_features_are_the_mean_over_its_text(toy_encoder: ToyModel) -> None:
    ids, places = (2, 81, 30, 17, 3), ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    rows = [Encoded(ids, (1.0,), labels=((0, label),)) for label in (0, 1)]
    features, answers = Look(prepare(toy_encoder("bert"), "float32"), rows, 0).features(places, 2)
    assert sorted(answers) == ["0", "1"]
    states = toy_encoder("bert")(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    for place, hidden in zip(places, states[1:], strict=True):
        for vector in features[place]:
            torch.testing.assert_close(vector, hidden[0].mean(dim=0).detach(), rtol=1e-4, atol=1e-5)


def test_a_text_to_text_models_features_know_no_answer(toy_model: ToyModel) -> None:
    ours = prepare(toy_model("t5").requires_grad_(False), "float32")
    rows = [Encoded((5, 81, 2, 30, answer, 1), (0.0,) * 4 + (1.0, 1.0)) for answer in (40, 41)]
    features, _ = Look(ours, rows, 0).features(["encoder.block.1", "decoder.block.1"], 2)
    for vectors in features.values():
        assert torch.equal(vectors[0], vectors[1])
        assert vectors[0].count_nonzero()


def test_a_sample_follows_from_the_seed(prepared: Prepared, make_rows: Callable[..., list[Encoded]]) -> None:
    rows = make_rows(12)
    samples = [Look(prepared, rows, seed).features(PLACES, 4)[1] for seed in (0, 0, 1)]
    assert [len(sample) for sample in samples] == [4, 4, 4]
    assert samples[0] == samples[1] != samples[2]
    assert len(Look(prepared, rows, 0).features(PLACES, 50)[1]) == 12


def test_weights_kept_in_bfloat16_are_looked_at_too(
    toy_model: ToyModel, make_rows: Callable[..., list[Encoded]]
) -> None:
    ours = prepare(toy_model("llama").requires_grad_(False), "bfloat16")
    seen: list[Tensor] = []
    Look(ours, make_rows(2), 0).gradients(NAMES, lambda _, gradient: seen.append(gradient), 2)
    assert len(seen) == 4
    assert all(gradient.isfinite().all() and gradient.count_nonzero() for gradient in seen)

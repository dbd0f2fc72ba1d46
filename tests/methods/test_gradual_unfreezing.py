from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from tunesmith.methods import _attachment, gradual_unfreezing
from tunesmith.methods.gradual_unfreezing import Config


def attached(model: Any, **keys: Any) -> Any:
    gradual_unfreezing.attach(model, Config(**keys))
    return model


def names(model: nn.Module, parameters: list[Any]) -> set[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return {known[id(parameter)] for parameter in parameters}


def test_each_lower_group_learns_slower_by_the_same_factor(toy_model: Callable[..., Any]) -> None:
    model = attached(toy_model("llama", num_hidden_layers=4, tie_word_embeddings=False), stages=4, decay=2.6)
    groups = gradual_unfreezing.param_groups(model)
    assert [group["scale"] for group in groups] == pytest.approx([1, 1 / 2.6, 1 / 2.6**2, 1 / 2.6**3])
    top, *_, low = (names(model, group["params"]) for group in groups)
    assert {"model.norm.weight", "lm_head.weight", "model.layers.3.mlp.up_proj.weight"} <= top
    assert {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"} <= low
    together = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(("layers", "stages", "sizes"), [(4, 2, [2, 2]), (5, 2, [3, 2]), (2, 4, [1, 1]), (3, 1, [3])])
def test_layers_are_cut_into_groups(layers: int, stages: int, sizes: list[int], toy_model: Callable[..., Any]) -> None:
    model = attached(toy_model("llama", num_hidden_layers=layers), stages=stages)
    found = [names(model, group["params"]) for group in gradual_unfreezing.param_groups(model)]
    assert [len({name.split(".")[2] for name in group if "layers" in name}) for group in found] == sizes


@pytest.mark.parametrize(
    ("every", "learning"),
    [
        # Twenty steps: the groups that learn at each of the first ten.
        (0.1, [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]),
        (3, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]),
        (0.01, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]),
    ],
)
def test_a_group_rests_until_its_turn(every: float, learning: list[int], toy_model: Callable[..., Any]) -> None:
    model = attached(toy_model("llama", num_hidden_layers=4), unfreeze_every=every)
    groups = [names(model, group["params"]) for group in gradual_unfreezing.param_groups(model)]
    for step, awake in enumerate(learning, 1):
        assert names(model, gradual_unfreezing.resting(model, step, 20)) == set().union(*groups[awake:])


def test_what_rests_is_owned_all_the_same(toy_llama: Any) -> None:
    model = attached(toy_llama)
    assert set(_attachment.trainable(model).names) == {name for name, _ in model.named_parameters()}

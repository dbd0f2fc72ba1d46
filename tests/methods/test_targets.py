from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _targets

LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
GPT2 = {"c_attn", "c_proj", "c_fc"}


def last_parts(found: dict[str, nn.Module]) -> set[str]:
    return {path.rpartition(".")[2] for path in found}


@pytest.mark.parametrize(("kind", "names", "count"), [("llama", LLAMA, 14), ("gpt2", GPT2, 8), ("gemma2", LLAMA, 14)])
def test_all_linear_is_every_linear_layer_but_the_head(
    kind: str, names: set[str], count: int, toy_model: Callable[..., Any]
) -> None:
    found = _targets.find(toy_model(kind), "all-linear")
    assert last_parts(found) == names
    assert len(found) == count


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["q_proj"], 2),
        (["q_proj", "q_proj", "self_attn.q_proj"], 2),
        (["mlp.up_proj", "layers.0.self_attn.k_proj"], 3),
        (["model.layers.1.mlp.up_proj"], 1),
        (["lm_head"], 1),
        ("q_proj", 2),
        ("(q|v)_proj", 4),
        (r".*layers\.1\..*", 7),
        (r"layers\.1\.mlp\.\w+", 3),
    ],
)
def test_names_and_patterns_find_layers(targets: str | list[str], count: int, toy_llama: Any) -> None:
    found = _targets.find(toy_llama, targets)
    assert len(found) == count
    assert all(toy_llama.get_submodule(path) is module for path, module in found.items())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], "no linear layer is called 'q_prj'; did you mean 'q_proj'?"),
        (["q_proj", "c_attn"], "no linear layer is called 'c_attn'; known: all-linear, down_proj, gate_proj"),
        (["proj"], "no linear layer is called 'proj'"),  # part of a name is not the name
        (["embed_tokens"], "no linear layer is called 'embed_tokens'"),
        ([], "got an empty list; type all-linear or some of down_proj"),
        ("all_linear", "'all_linear' matches no linear layer; did you mean 'all-linear'?"),
        ("q_pro", "'q_pro' matches no linear layer; did you mean 'q_proj'?"),
        ("(q_proj", "'(q_proj' is not a regular expression"),
    ],
)
def test_what_matches_nothing_is_a_mistake_that_says_what_there_is(
    targets: str | list[str], message: str, toy_llama: Any
) -> None:
    with pytest.raises(Mistake) as caught:
        _targets.find(toy_llama, targets)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({"exclude_modules": ["q_proj", "mlp.up_proj"]}, 10),
        ({"exclude_modules": r".*layers\.0\..*"}, 7),
        ({"layers_to_transform": 1}, 7),
        ({"layers_to_transform": [0, 1], "exclude_modules": "mlp.*"}, 8),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0]}, 1),
    ],
)
def test_targets_are_narrowed(keys: dict[str, Any], count: int, toy_llama: Any) -> None:
    assert len(_targets.select(toy_llama, _targets.Targets(**keys))) == count


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"exclude_modules": ["q_prj"]}, "exclude_modules: no target is called 'q_prj'; did you mean 'q_proj'?"),
        ({"exclude_modules": "(q_proj"}, "exclude_modules: '(q_proj' is not a regular expression"),
        ({"layers_to_transform": [1, 2]}, "layers_to_transform: no target lies in block 2; expected some of [0, 1]"),
        ({"exclude_modules": ".*"}, "nothing is left of the targets"),
    ],
)
def test_narrowing_that_meets_nothing_is_a_mistake(keys: dict[str, Any], message: str, toy_llama: Any) -> None:
    with pytest.raises(Mistake) as caught:
        _targets.select(toy_llama, _targets.Targets(**keys))
    assert message in str(caught.value)


def test_embeddings_are_found_where_they_are_asked_for(toy_llama: Any) -> None:
    kinds = _targets.LINEAR_OR_EMBEDDING
    assert list(_targets.find(toy_llama, ["embed_tokens"], kinds)) == ["model.embed_tokens"]
    assert len(_targets.find(toy_llama, "all-linear", kinds)) == 14
    with pytest.raises(Mistake, match="no layer is called 'embed_tokns'; did you mean 'embed_tokens'"):
        _targets.find(toy_llama, ["embed_tokns"], kinds)


def test_parameters_are_found_by_their_last_parts(toy_llama: Any) -> None:
    found = _targets.find_parameters(toy_llama, ["mlp.up_proj.weight", "layers.1.mlp.down_proj.weight"])
    assert found == {
        "model.layers.0.mlp.up_proj": ["weight"],
        "model.layers.1.mlp.up_proj": ["weight"],
        "model.layers.1.mlp.down_proj": ["weight"],
    }


def test_names_are_short_only_where_that_means_the_same(toy_llama: Any) -> None:
    every_q = [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    assert _targets.names_for(toy_llama, every_q) == ["q_proj"]
    assert _targets.names_for(toy_llama, every_q[:1]) == every_q[:1]

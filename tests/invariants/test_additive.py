"""The additive family in the engine: packed = separate, and generation = transformers' own forward."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine.forward import forward
from tunesmith.engine.generation import generate
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared, prepare

WINDOW = 12
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "phi3": {},
    "gpt2": {},
}
METHODS: list[dict[str, Any]] = [
    {"name": "ia3"},
    {"name": "ia3", "target_modules": "all-linear"},
    {"name": "bottleneck"},
    {"name": "bottleneck", "placement": "houlsby", "reduction_factor": 4},
    {"name": "prefix", "num_virtual_tokens": 5, "init": "random"},
    {"name": "p_tuning", "num_virtual_tokens": 5, "init": "random"},
    {"name": "p_tuning", "num_virtual_tokens": 20, "init": "random", "encoder_reparameterization_type": "LSTM"},
]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda keys: "-".join(map(str, keys.values())))
shared_or_not = pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])
ToyModel = Callable[..., Any]


def _ids(generator: random.Random, length: int) -> tuple[int, ...]:
    return tuple(generator.randrange(3, 320) for _ in range(length))


def _rows() -> list[Encoded]:
    """Rows of many lengths, most of which begin alike; some trained all through, some at the end alone."""
    generator = random.Random(5)
    instruction = _ids(generator, 30)
    rows = []
    for number in range(8):
        ids = (instruction if number % 4 else ()) + _ids(generator, generator.randrange(2, 25))
        rows.append(Encoded(ids, (*[float(number % 2)] * (len(ids) - 1), 1.0)))
    return rows


ROWS = _rows()


class Pair:
    """A toy with a method attached and moved, once as transformers runs it and once made ready for the engine."""

    def __init__(self, toy_model: ToyModel, kind: str, keys: dict[str, Any]) -> None:
        self.plain = toy_model(kind, **KINDS[kind])
        self.plain.set_attn_implementation("eager")
        self.ours: Prepared = prepare(copy.deepcopy(self.plain), "float32")
        chosen = choose("methods", **keys)
        for model in (self.plain, self.ours.model):
            torch.manual_seed(1)
            chosen.module.attach(model, chosen.config)
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for parameter in self.trained(model).values():
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        self.prefix = chosen.module.prefix_tokens(self.plain) if hasattr(chosen.module, "prefix_tokens") else ()

    @staticmethod
    def trained(model: Any) -> dict[str, Tensor]:
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def alone(self, row: Encoded) -> Tensor:
        """Log-probabilities of a row's labels through transformers."""
        ids = torch.tensor([[*self.prefix, *row.ids]])
        found = torch.log_softmax(self.plain(input_ids=ids).logits[0].float(), dim=-1)
        before = len(self.prefix)
        places = [place for place, weight in enumerate(row.weights) if weight and before + place > 0]
        return found[[before + place - 1 for place in places], [row.ids[place] for place in places]]

    def continued(self, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
        """What transformers' forward finds likeliest, one token after another, without a cache."""
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(count):
                ids.append(int(self.plain(input_ids=torch.tensor([[*self.prefix, *ids]])).logits[0, -1].argmax()))
        return tuple(ids[len(prompt) :])


@shared_or_not
@each_method
@each_kind
def test_a_pack_gives_every_row_what_it_gets_alone(
    kind: str, method: dict[str, Any], share: bool, toy_model: ToyModel
) -> None:
    pair = Pair(toy_model, kind, method)
    batch = pack(ROWS, prefix=pair.prefix, share=share)
    packed, alone = forward(pair.ours, batch).logprobs, torch.cat([pair.alone(row) for row in ROWS])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)

    (packed * batch.weights).sum().backward()
    (alone * batch.weights).sum().backward()
    wanted = pair.trained(pair.plain)
    for name, parameter in pair.trained(pair.ours.model).items():
        expected = wanted[name].grad
        assert expected is not None
        assert expected.abs().max() > 0, name
        # Sums run in another order: float32 rounding, relative to the tensor's largest gradient.
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-5 * float(expected.abs().max()) + 1e-6)


@each_method
@each_kind
def test_generation_is_what_transformers_forward_finds(kind: str, method: dict[str, Any], toy_model: ToyModel) -> None:
    pair = Pair(toy_model, kind, method)
    prompts = [row.ids[-9:] for row in ROWS[:3]] + [ROWS[5].ids]
    made = generate(pair.ours, prompts, max_new_tokens=6, end_ids=(), prefix=pair.prefix)
    assert [one.ids for one in made] == [pair.continued(prompt, 6) for prompt in prompts]


@each_method
def test_behind_frozen_weights_in_bfloat16_what_trains_is_float32(method: dict[str, Any], toy_model: ToyModel) -> None:
    prepared = prepare(toy_model("llama"), "bfloat16")
    chosen = choose("methods", **method)
    chosen.module.attach(prepared.model, chosen.config)
    prefix = chosen.module.prefix_tokens(prepared.model) if hasattr(chosen.module, "prefix_tokens") else ()
    forward(prepared, pack(ROWS, prefix=prefix)).logprobs.sum().backward()
    trained = Pair.trained(prepared.model)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert any(p.grad is not None and p.grad.count_nonzero() for p in trained.values())


@each_method
def test_layers_computed_again_in_the_backward_pass_give_the_same_gradients(
    method: dict[str, Any], toy_model: ToyModel
) -> None:
    found = []
    for again in (False, True):
        pair = Pair(toy_model, "llama", method)
        prepared = replace(pair.ours, recompute=again)
        for rows in (ROWS[:3], ROWS):  # a pass of another shape before must leave nothing behind
            batch = pack(rows, prefix=pair.prefix, share=False)
            (forward(prepared, batch).logprobs * batch.weights).sum().backward()
        found.append({name: parameter.grad for name, parameter in pair.trained(prepared.model).items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))

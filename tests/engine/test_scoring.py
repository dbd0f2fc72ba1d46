"""Scoring: log-probabilities and divergences are those that transformers and torch give by hand."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.scoring import candidate_logprobs, distributions, divergence, sequence_logprobs


def _ids(generator: random.Random, length: int) -> tuple[int, ...]:
    return tuple(generator.randrange(3, 320) for _ in range(length))


def _prompts() -> list[tuple[int, ...]]:
    generator = random.Random(2)
    instruction = _ids(generator, 20)
    return [instruction + _ids(generator, length) for length in (4, 1, 9)] + [_ids(generator, 6)]


PROMPTS = _prompts()
CANDIDATES = [[(7,), (7, 8), (9, 8, 7)], [(5,), (6,), (5, 6)], [(7,), (7, 8), (9, 8, 7)], [(300,), (3,), (4, 4, 4, 4)]]


def _pair(toy_model: Callable[..., Any], kind: str = "llama", **keys: Any) -> tuple[Any, Prepared]:
    reference = toy_model(kind, **keys)
    reference.set_attn_implementation("eager")
    return reference, prepare(copy.deepcopy(reference), "float32")


@torch.no_grad()
def _logprobs(model: Any, ids: Sequence[int], prefix: Tensor | None = None) -> Tensor:
    """Of every token that might follow each token of `ids`, `[len(ids), vocabulary]`, float64."""
    embedded = model.get_input_embeddings()(torch.tensor([ids]))
    before = 0 if prefix is None else len(prefix)
    if prefix is not None:
        embedded = torch.cat([prefix.unsqueeze(0), embedded], dim=1)
    return torch.log_softmax(model(inputs_embeds=embedded).logits[0, before:].double(), dim=-1)


def _continued(model: Any, prompt: Sequence[int], answer: Sequence[int], prefix: Tensor | None = None) -> float:
    scores = _logprobs(model, (*prompt, *answer), prefix)
    return sum(float(scores[len(prompt) + n - 1, token]) for n, token in enumerate(answer))


@pytest.mark.parametrize("max_tokens", [4096, 30])
@pytest.mark.parametrize(("kind", "keys"), [("llama", {}), ("gemma2", {"sliding_window": 8}), ("gpt2", {})])
def test_candidates_have_the_probability_transformers_gives_them(
    kind: str, keys: dict[str, Any], max_tokens: int, toy_model: Callable[..., Any]
) -> None:
    reference, prepared = _pair(toy_model, kind, **keys)
    heard: list[float] = []
    scores = candidate_logprobs(prepared, PROMPTS, CANDIDATES, max_tokens=max_tokens, on_rows=heard.append)
    wanted = [
        [_continued(reference, prompt, answer) for answer in answers]
        for prompt, answers in zip(PROMPTS, CANDIDATES, strict=True)
    ]
    torch.testing.assert_close(scores, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-4)
    assert sum(heard) == pytest.approx(len(PROMPTS))
    assert (len(heard) > 1) == (max_tokens < 4096)
    assert candidate_logprobs(prepared, [], []).numel() == 0


def test_candidates_behind_virtual_tokens(toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model)
    method = choose("methods", "prompt_tuning", num_virtual_tokens=5, init="random")
    torch.manual_seed(1)
    method.module.attach(prepared.model, method.config)
    (virtual,) = method.module.state(prepared.model).values()
    prefix = method.module.prefix_tokens(prepared.model)
    scores = candidate_logprobs(prepared, PROMPTS[:1], CANDIDATES[:1], prefix=prefix)
    wanted = [[_continued(reference, PROMPTS[0], answer, virtual) for answer in CANDIDATES[0]]]
    torch.testing.assert_close(scores, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-4)


def test_sequences_are_summed_by_their_weights(toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model)
    generator = random.Random(4)
    rows = [Encoded(prompt, tuple(generator.choice((0.0, 0.5, 1.0)) for _ in prompt)) for prompt in PROMPTS]
    rows.append(Encoded((5, 6), (0.0, 0.0)))  # nothing to score
    sums, counts = sequence_logprobs(prepared, rows)
    for row, total, count in zip(rows, sums.tolist(), counts.tolist(), strict=True):
        scores = _logprobs(reference, row.ids)
        wanted = [(w, float(scores[n - 1, row.ids[n]])) for n, w in enumerate(row.weights) if n > 0]
        assert total == pytest.approx(sum(weight * score for weight, score in wanted), abs=1e-4)
        assert count == pytest.approx(sum(weight for weight, _ in wanted))


ROWS = [Encoded(prompt, (*[0.0] * (len(prompt) - 3), 1.0, 0.0, 1.0)) for prompt in PROMPTS]


@pytest.mark.parametrize("max_tokens", [1024, 20])
def test_distributions_come_in_the_order_of_rows(max_tokens: int, toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model)
    found = distributions(prepared, ROWS, max_tokens=max_tokens)
    wanted = torch.cat([_logprobs(reference, row.ids)[[len(row.ids) - 4, len(row.ids) - 2]] for row in ROWS])
    assert found.dtype == torch.float16
    # Half precision has 11 bits: a log-probability between 8 and 16 nats is rounded to 1/128.
    torch.testing.assert_close(found.double(), wanted, rtol=2**-11, atol=1e-3)


def test_a_model_does_not_diverge_from_itself(toy_llama: Any) -> None:
    own = distributions(prepare(toy_llama, "float32"), ROWS)
    assert divergence(own, own).tolist() == [0.0] * (2 * len(ROWS))


def test_divergence_is_that_of_torch(toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model)
    other_reference, other = _pair(toy_model, seed=1)
    found = divergence(distributions(prepared, ROWS), distributions(other, ROWS), block=3)
    p, q = (
        torch.cat([_logprobs(model, row.ids)[[len(row.ids) - 4, len(row.ids) - 2]] for row in ROWS])
        for model in (reference, other_reference)
    )
    wanted = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    assert float(wanted.min()) > 0.5
    # Each log-probability was rounded to 11 bits, ±0.002 nats for those of 4 to 8 nats that weigh most.
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=4e-3)


@pytest.mark.parametrize("apart", [0.0, 1e-3, 1e-2, 0.1, 30.0])
def test_divergence_is_never_below_nothing_and_sees_a_small_drift(apart: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(50, 300, generator=generator).double()
    moved = scores + apart * torch.randn(50, 300, generator=generator)
    base, tuned = scores.log_softmax(-1), moved.log_softmax(-1)
    found = divergence(base.half(), tuned.half())
    assert float(found.min()) >= 0
    # Rounding to half precision is itself a drift of 1e-7 nats; as a bias of the sums it would be one of 1e-4.
    wanted = float((base.exp() * (base - tuned)).sum(-1).mean())
    assert float(found.mean()) == pytest.approx(wanted, rel=0.01, abs=1e-6)

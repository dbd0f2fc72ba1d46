from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn import functional

from tunesmith.objectives import sft


def test_the_sum_is_the_cross_entropy_of_the_trained_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(6, 11, generator=generator), torch.randint(0, 11, (6,), generator=generator)
    weights = torch.tensor([1.0, 1, 0, 1, 0, 1])
    chosen = scores.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    terms = SimpleNamespace(logprobs=chosen, correct=scores.argmax(-1) == labels)
    total, count, metrics = sft.loss(terms, SimpleNamespace(weights=weights), sft.Config())
    trained = weights.bool()
    torch.testing.assert_close(total, functional.cross_entropy(scores[trained], labels[trained], reduction="sum"))
    assert count == 4
    assert metrics["token_accuracy"] == (scores.argmax(-1) == labels)[trained].sum()


def test_a_half_weight_counts_half() -> None:
    terms = SimpleNamespace(logprobs=torch.tensor([-1.0, -3.0]), correct=torch.tensor([True, False]))
    total, count, metrics = sft.loss(terms, SimpleNamespace(weights=torch.tensor([0.5, 1.0])), sft.Config())
    assert (total, count, metrics["token_accuracy"]) == (3.5, 1.5, 0.5)


def test_accuracy_is_left_out_where_it_was_not_computed() -> None:
    terms = SimpleNamespace(logprobs=torch.tensor([-1.0]), correct=None)
    assert sft.loss(terms, SimpleNamespace(weights=torch.ones(1)), sft.Config())[2] == {}

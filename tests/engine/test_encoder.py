from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from tunesmith.core.records import Encoded
from tunesmith.engine import labels, pooling
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import pack, plan
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.scoring import sequence_logprobs

ToyModel = Callable[..., Any]
KINDS = ("bert", "roberta", "distilbert", "deberta", "modernbert")
HEADS = {
    "ForSequenceClassification": ((0, 2),),
    "ForTokenClassification": ((1, 0), (3, 2), (4, 1)),
    "ForQuestionAnswering": ((2, 0), (4, 1)),
    "ForMaskedLM": ((1, 40), (4, 7)),
}
LENGTHS = (5, 23, 9, 70)


def rows(head: str, lengths: tuple[int, ...] = LENGTHS) -> list[Encoded]:
    wanted = HEADS[head]
    return [
        Encoded((2, *range(20 + n, 17 + 2 * n), 3, 3), (1.0,) * len(wanted), labels=wanted, second=n // 2)
        for n in lengths
    ]


def made(toy_encoder: ToyModel, kind: str, head: str, **keys: Any) -> Prepared:
    return prepare(toy_encoder(kind, head, num_labels=2 if head == "ForQuestionAnswering" else 3, **keys), "float32")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_as_its_rows_one_by_one(toy_encoder: ToyModel, kind: str, head: str) -> None:
    prepared = made(toy_encoder, kind, head)
    together = forward(prepared, pack(rows(head)))
    single = [forward(prepared, pack([row])) for row in rows(head)]
    torch.testing.assert_close(together.logprobs, torch.cat([one.logprobs for one in single]), rtol=0, atol=1e-5)
    assert torch.equal(together.correct, torch.cat([one.correct for one in single]))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "ForMaskedLM"])
@pytest.mark.parametrize("kind", ["bert", "deberta", "modernbert"])
def test_the_loss_is_that_of_transformers(toy_encoder: ToyModel, kind: str, head: str) -> None:
    prepared = made(toy_encoder, kind, head)
    (row,) = rows(head, (9,))
    terms = forward(prepared, pack([row]))
    ids = torch.tensor([row.ids])
    inputs: dict[str, Any] = {"input_ids": ids}
    if kind == "bert":
        inputs["token_type_ids"] = (torch.arange(ids.shape[1]) >= row.second).long()[None]
    if head == "ForSequenceClassification":
        inputs["labels"] = torch.tensor([2])
    elif head == "ForTokenClassification":
        inputs["labels"] = torch.full_like(ids, -100)
        for place, label in row.labels:
            inputs["labels"][0, place] = label
    else:
        inputs |= {"start_positions": torch.tensor([2]), "end_positions": torch.tensor([4])}
    theirs = toy_encoder(kind, head, num_labels=prepared.model.config.num_labels)(**inputs).loss
    torch.testing.assert_close(-terms.logprobs.mean(), theirs, rtol=0, atol=1e-5)


def test_several_labels_are_each_a_yes_or_no(toy_encoder: ToyModel) -> None:
    model = toy_encoder("bert", num_labels=3, problem_type="multi_label_classification")
    prepared = prepare(model, "float32")
    row = Encoded((2, 30, 31, 3), (1.0,) * 3, labels=((0, 0), (0, 3), (0, 5)))
    terms = forward(prepared, pack([row]))
    scores = model(torch.tensor([row.ids])).logits[0]
    wanted = torch.tensor([0.0, 1.0, 1.0])
    loss = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    torch.testing.assert_close(-terms.logprobs, loss, rtol=0, atol=1e-5)
    assert torch.equal(terms.correct, (scores > 0) == wanted.bool())


def test_rows_of_like_length_are_packed_within_the_limit() -> None:
    made = rows("ForSequenceClassification", (5, 23, 9, 70, 6, 8))
    groups = plan(made, max_tokens=40)
    assert sorted(i for group in groups for i in group) == list(range(6))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(made[i].ids) for i in group) <= 40
    assert [len(made[i].ids) for group in groups for i in group] == sorted(len(row.ids) for row in made)


def test_summed_rows_are_scored_whatever_the_packs(toy_encoder: ToyModel) -> None:
    prepared = made(toy_encoder, "bert", "ForTokenClassification")
    given = rows("ForTokenClassification")
    sums, counts = sequence_logprobs(prepared, given, max_tokens=32)
    again, _ = sequence_logprobs(prepared, given, max_tokens=4096)
    torch.testing.assert_close(sums, again, rtol=0, atol=1e-5)
    assert counts.tolist() == [3.0] * 4


def test_what_is_read_is_the_models_own_scores(toy_encoder: ToyModel) -> None:
    prepared = made(toy_encoder, "bert", "ForTokenClassification")
    given = [Encoded(row.ids, (), second=row.second) for row in rows("ForTokenClassification")]
    for row, found in zip(given, labels.read(prepared, given), strict=True):
        types = (torch.arange(len(row.ids)) >= row.second).long()
        theirs = prepared.model(torch.tensor([row.ids]), token_type_ids=types[None]).logits[0]
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)


def test_an_embedding_is_the_mean_over_tokens_not_padding(toy_encoder: ToyModel) -> None:
    prepared = made(toy_encoder, "bert", "ForSequenceClassification")
    given = [Encoded(row.ids, ()) for row in rows("ForSequenceClassification")]
    for row, found in zip(given, pooling.embeddings(prepared, given), strict=True):
        states = prepared.model.bert(torch.tensor([row.ids])).last_hidden_state[0]
        torch.testing.assert_close(found, states.mean(0), rtol=0, atol=1e-5)


def test_an_embedding_leaves_virtual_tokens_out(toy_encoder: ToyModel) -> None:
    prepared = made(toy_encoder, "bert", "ForSequenceClassification")
    given = [Encoded(row.ids, ()) for row in rows("ForSequenceClassification")]
    for row, found in zip(given, pooling.embeddings(prepared, given, prefix=(9, 8)), strict=True):
        states = prepared.model.bert(torch.tensor([(9, 8, *row.ids)])).last_hidden_state[0]
        torch.testing.assert_close(found, states[2:].mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_words_have_the_logits_of_transformers(toy_encoder: ToyModel, kind: str) -> None:
    prepared = made(toy_encoder, kind, "ForMaskedLM")
    given = [replace(row, second=0) for row in rows("ForMaskedLM")]
    logits = [prepared.model(torch.tensor([row.ids])).logits[0] for row in given]
    wanted = [
        one.log_softmax(-1)[place, label] for one, row in zip(logits, given, strict=True) for place, label in row.labels
    ]
    torch.testing.assert_close(forward(prepared, pack(given)).logprobs, torch.stack(wanted), rtol=0, atol=1e-5)

"""Packed equals separate: every row of a pack gets what it would get alone through plain transformers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import PackedBatch, pack, packs
from tunesmith.engine.prepare import prepare

WINDOW = 12
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma": {},
    "gemma3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    "phi": {},
    "phi3": {},
    "gpt2": {},
}
"""Kinds of models, with windows shorter than the rows and a cap on the scores that is felt."""
each_kind = pytest.mark.parametrize("kind", KINDS)
shared_or_not = pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])


def _ids(generator: random.Random, length: int) -> tuple[int, ...]:
    return tuple(generator.randrange(3, 320) for _ in range(length))


def _answered(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Encoded:
    return Encoded(prompt + answer, (0.0,) * len(prompt) + (1.0,) * len(answer))


def _rows() -> list[Encoded]:
    """Beginnings shared, and shared again inside; weights of every size; rows of every awkward form."""
    generator = random.Random(5)
    instruction, shots = _ids(generator, 30), _ids(generator, 20)
    rows = []
    for number in range(6):
        ids = instruction + (shots if number % 2 else ()) + _ids(generator, generator.randrange(2, 25))
        weights = [generator.choice((0.0, 0.0, 0.5, 1.0)) for _ in ids]  # inside the shared beginnings too
        rows.append(Encoded(ids, (*weights[:-1], 1.0)))
    question = instruction + _ids(generator, 7)
    rows += [_answered(question, (answer,)) for answer in (7, 8, 9)]  # candidates of one token: nothing but labels
    rows += [_answered(question, (7, 8)), rows[2], rows[2]]  # one goes on from another; the same twice
    rows += [Encoded(rows[3].ids[:-3], (*rows[3].weights[:-4], 1.0))]  # a row that another begins with
    rows += [_answered((5,), (6,)), _answered(_ids(generator, 9), _ids(generator, 40)), rows[0]]
    generator.shuffle(rows)
    return rows


ROWS = _rows()


def _alone(model: Any, rows: Sequence[Encoded], prefix: Tensor | None = None) -> Tensor:
    """Log-probabilities of the labels, each row alone through transformers, `prefix [tokens, hidden]` before it."""
    pieces = []
    for row in rows:
        ids = torch.tensor([row.ids])
        embedded = model.get_input_embeddings()(ids)
        before = 0 if prefix is None else len(prefix)
        if prefix is not None:
            embedded = torch.cat([prefix.unsqueeze(0), embedded], dim=1)
        logprobs = torch.log_softmax(model(inputs_embeds=embedded).logits[0].float(), dim=-1)
        places = [place for place, weight in enumerate(row.weights) if weight and before + place > 0]
        pieces.append(logprobs[[before + place - 1 for place in places], [row.ids[place] for place in places]])
    return torch.cat(pieces)


def _weighted(logprobs: Tensor, batch: PackedBatch) -> Tensor:
    return (logprobs * batch.weights).sum()


def _assert_same_gradients(model: Any, reference: Any) -> None:
    """Every gradient to float32 rounding, relative to the largest of its tensor: sums run in another order."""
    wanted = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        largest = float(wanted[name].abs().max())
        assert largest > 0, name
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=0, atol=1e-5 * largest + 1e-6, msg=name)


@shared_or_not
@each_kind
def test_a_pack_gives_every_row_what_it_gets_alone(kind: str, share: bool, toy_model: Callable[..., Any]) -> None:
    reference = toy_model(kind, **KINDS[kind])
    reference.set_attn_implementation("eager")
    prepared = prepare(copy.deepcopy(reference), "float32")
    batch = pack(ROWS, share=share)
    assert (len(batch.tokens) < sum(len(row.ids) - 1 for row in ROWS)) == share

    packed, alone = forward(prepared, batch).logprobs, _alone(reference, ROWS)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)

    _weighted(packed, batch).backward()
    _weighted(alone, batch).backward()
    _assert_same_gradients(prepared.model, reference)


@shared_or_not
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_virtual_tokens_stand_before_every_row(kind: str, share: bool, toy_model: Callable[..., Any]) -> None:
    reference = toy_model(kind, **KINDS[kind])
    reference.set_attn_implementation("eager")
    prepared = prepare(copy.deepcopy(reference), "float32")
    method = choose("methods", "prompt_tuning", num_virtual_tokens=20, init="random")
    torch.manual_seed(1)
    method.module.attach(prepared.model, method.config)
    (virtual,) = method.module.state(prepared.model).values()
    wanted = virtual.clone().requires_grad_(True)

    batch = pack(ROWS, prefix=method.module.prefix_tokens(prepared.model), share=share)
    packed, alone = forward(prepared, batch).logprobs, _alone(reference, ROWS, wanted)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)

    _weighted(packed, batch).backward()
    _weighted(alone, batch).backward()
    (trained,) = (parameter for parameter in prepared.model.parameters() if parameter.requires_grad)
    assert wanted.grad is not None
    torch.testing.assert_close(trained.grad, wanted.grad, rtol=0, atol=1e-5 * float(wanted.grad.abs().max()))


def test_the_first_token_of_a_row_is_trained_only_behind_virtual_tokens() -> None:
    row = Encoded((5, 6, 7), (1.0, 1.0, 1.0))
    assert pack([row]).labels.tolist() == [6, 7]  # nothing stands before 5 that could predict it
    assert pack([row], prefix=[400, 401]).labels.tolist() == [5, 6, 7]


@pytest.mark.parametrize("ids", [(), (5,)])
def test_a_row_without_anything_to_predict_is_an_error(ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        pack([Encoded((5, 6), (0.0, 1.0)), Encoded(ids, (1.0,) * len(ids))])


# Few different tokens and cuts of other rows make beginnings that coincide; stems make them long enough to be shared.
_tail = some.sampled_from([1, 1, 2, 5, 20]).flatmap(lambda size: some.text("\x01\x02z", min_size=size, max_size=size))
_stem = some.sampled_from([(0,), (0, *range(3, 20)), (0, *range(3, 40)), (0, *range(3, 25), *range(3, 25))])
_cut = some.tuples(some.integers(0, 5), some.sampled_from([1, 2, 3, 18, 19, 20, 30]), _tail)
_weights = some.sampled_from([(1.0,), (0.0, 1.0), (0.0, 0.0, 0.25, 0.0, 1.0)])
_adapter = some.sampled_from(["", "", "other"])


@some.composite
def _some_rows(draw: some.DrawFn) -> list[Encoded]:
    texts = [(*draw(_stem), *draw(_tail).encode()) for _ in range(draw(some.integers(1, 5)))]
    texts += [
        (*texts[which % len(texts)][:at], *tail.encode()) for which, at, tail in draw(some.lists(_cut, max_size=8))
    ]
    return [
        Encoded(ids, tuple(islice(cycle(draw(_weights)), len(ids))), draw(_adapter))
        for ids in draw(some.permutations(texts))
    ]


_any_rows = _some_rows()
_any_prefix = some.sampled_from([(), (900, 901, 902), tuple(range(900, 920))])


def _ancestors(batch: PackedBatch, flat: int) -> list[int]:
    """Flat positions that the token at `flat` sees, first to last, read off the segments."""
    number = next(n for n, s in enumerate(batch.segments) if s.start <= flat < s.start + s.length)
    seen = list(range(batch.segments[number].start, flat + 1))
    while (number := batch.segments[number].parent) >= 0:
        above = batch.segments[number]
        seen = [*range(above.start, above.start + above.length), *seen]
    return seen


@settings(max_examples=100, deadline=None)
@given(rows=_any_rows, prefix=_any_prefix, share=some.booleans())
def test_every_target_stands_behind_exactly_its_row(rows: list[Encoded], prefix: tuple[int, ...], share: bool) -> None:
    batch = pack(rows, prefix=prefix, share=share)
    tokens, targets = batch.tokens.tolist(), iter(range(len(batch.labels)))
    for number, row in enumerate(rows):
        ids = (*prefix, *row.ids)
        for place, weight in enumerate((*[0.0] * len(prefix), *row.weights)):
            if not weight or place == 0:
                continue
            target = next(targets)
            seen = _ancestors(batch, int(batch.index[target]))
            assert [tokens[flat] for flat in seen] == list(ids[:place])
            assert batch.positions[seen].tolist() == list(range(place))
            assert (batch.labels[target], batch.weights[target], batch.row[target]) == (ids[place], weight, number)
        way = [flat for start, stop in batch.ways[number] for flat in range(start, stop)]
        assert [tokens[flat] for flat in way] == list(ids[:-1])
    assert next(targets, None) is None


@settings(max_examples=100, deadline=None)
@given(rows=_any_rows, prefix=_any_prefix, share=some.booleans())
def test_segments_tile_the_batch_parents_first_and_keep_to_their_adapter(
    rows: list[Encoded], prefix: tuple[int, ...], share: bool
) -> None:
    batch = pack(rows, prefix=prefix, share=share)
    place = 0
    for number, segment in enumerate(batch.segments):
        assert segment.start == place
        assert segment.length > 0
        place += segment.length
        assert segment.parent < number
        assert segment.parent < 0 or batch.segments[segment.parent].adapter == segment.adapter
    assert place == len(batch.tokens) == len(batch.positions)
    for row, way in zip(rows, batch.ways, strict=True):
        assert {s.adapter for s in batch.segments for start, _ in way if s.start == start} == {row.adapter}


@settings(max_examples=100, deadline=None)
@given(rows=_any_rows, prefix=_any_prefix)
def test_sharing_never_makes_a_batch_larger(rows: list[Encoded], prefix: tuple[int, ...]) -> None:
    assert len(pack(rows, prefix=prefix).tokens) <= len(pack(rows, prefix=prefix, share=False).tokens)


@settings(max_examples=100, deadline=None)
@given(rows=_any_rows, prefix=_any_prefix, max_tokens=some.integers(10, 300), share=some.booleans())
def test_a_plan_holds_every_row_once_and_keeps_to_its_size(
    rows: list[Encoded], prefix: tuple[int, ...], max_tokens: int, share: bool
) -> None:
    divided = list(packs(rows, max_tokens=max_tokens, prefix=prefix, share=share))
    assert sorted(i for group, _ in divided for i in group) == list(range(len(rows)))
    for group, batch in divided:
        assert len(group) == 1 or len(batch.tokens) <= max_tokens


@pytest.mark.parametrize("prefix", [(), (900, 901, 902, 903, 904)], ids=["plain", "prefixed"])
def test_a_plan_does_not_count_on_beginnings_too_short_to_share(prefix: tuple[int, ...]) -> None:
    stem, more = tuple(range(20)), tuple(range(100, 110))
    rows = [Encoded((*stem, 5, 6), (1.0,) * 22)]  # lies at 20 + 1: the last token is only a label
    rows += [
        Encoded((*stem, *more, last, 6), (1.0,) * 32) for last in (7, 8)
    ]  # 11 each: `more` once would save too few
    exactly = len(prefix) + 20 + 1 + 11 + 11
    assert [len(b.tokens) for _, b in packs(rows, max_tokens=exactly, prefix=prefix)] == [exactly]
    assert len(list(packs(rows, max_tokens=exactly - 1, prefix=prefix))) == 2


def test_a_plan_does_not_share_between_adapters() -> None:
    rows = [Encoded(tuple(range(30)), (1.0,) * 30, adapter) for adapter in ("", "other")]
    assert len(list(packs(rows, max_tokens=58))) == 1
    assert len(list(packs(rows, max_tokens=57))) == 2


def test_rows_nested_deeper_than_calls_may_be() -> None:
    text = tuple(range(1100))
    rows = [Encoded(text[: length + 1], (*[0.0] * length, 1.0)) for length in range(1, 1100)]  # every beginning of one
    batch = pack(rows)
    assert len(batch.tokens) < 1099 + 8 * 16  # all but the last few, which are too short to be worth a segment
    assert batch.tokens[batch.index].tolist() == list(range(1099))


def test_rows_that_begin_alike_come_into_one_pack() -> None:
    generator = random.Random(0)
    stems = [_ids(generator, 100) for _ in range(4)]
    rows = [Encoded((*stems[i % 4], *_ids(generator, 5)), (1.0,) * 105) for i in range(40)]
    groups = [group for group, _ in packs(rows, max_tokens=160)]
    assert [{i % 4 for i in group} for group in groups] == [{i % 4} for i in (g[0] for g in groups)]
    assert len(groups) == 4

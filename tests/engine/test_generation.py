"""Generation: greedy tokens are those of transformers' own `generate`; draws come from the nucleus and nowhere else."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.engine import generation
from tunesmith.engine.generation import Sampling, generate
from tunesmith.engine.prepare import Prepared, prepare

NEW = 12
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 8, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma": {},
    "gemma3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    "phi": {},
    "phi3": {},
    "gpt2": {},
}


def _ids(generator: random.Random, length: int) -> tuple[int, ...]:
    return tuple(generator.randrange(3, 320) for _ in range(length))


def _prompts() -> list[tuple[int, ...]]:
    """Ragged, some with a beginning in common, one that another begins with, one of a single token, one twice."""
    generator = random.Random(11)
    stem = _ids(generator, 25)
    prompts = [stem + _ids(generator, length) for length in (1, 9, 4)] + [_ids(generator, length) for length in (17, 2)]
    return [*prompts, stem, (7,), prompts[1]]


PROMPTS = _prompts()


def _theirs(
    model: Any, prompt: Sequence[int], end_ids: Sequence[int], count: int = NEW, prefix: Tensor | None = None
) -> tuple[int, ...]:
    """What transformers generates greedily for one prompt, `prefix [tokens, hidden]` before it."""
    ids = torch.tensor([prompt])
    embedded = model.get_input_embeddings()(ids)
    if prefix is not None:
        embedded = torch.cat([prefix.unsqueeze(0), embedded], dim=1)
    made = model.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=list(end_ids) or None,
        pad_token_id=0,
    )
    return tuple(made[0].tolist())


def _pair(toy_model: Callable[..., Any], kind: str) -> tuple[Any, Prepared]:
    """The same model plain and prepared; the plain one is asked for eager attention and ends nowhere by itself."""
    reference = toy_model(kind, **KINDS[kind])
    reference.set_attn_implementation("eager")
    reference.generation_config.eos_token_id = None
    return reference, prepare(copy.deepcopy(reference), "float32")


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_transformers(kind: str, toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model, kind)
    without_end = [_theirs(reference, prompt, ()) for prompt in PROMPTS]
    assert len(set(without_end)) > 3  # the rows do differ
    ours = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=())
    assert [made.ids for made in ours] == without_end
    assert not any(made.finished for made in ours)

    # Ends that rows meet at different steps, or not at all.
    ends = (without_end[0][0], without_end[1][5], without_end[3][3])
    theirs = [_theirs(reference, prompt, ends) for prompt in PROMPTS]
    assert len({len(made) for made in theirs}) > 2
    ours = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=ends)
    finished = [made[-1] in ends for made in theirs]
    assert [made.ids for made in ours] == [
        made[:-1] if end else made for made, end in zip(theirs, finished, strict=True)
    ]
    assert [made.finished for made in ours] == finished


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_rows_come_out_the_same_alone_and_in_many_groups(kind: str, toy_model: Callable[..., Any]) -> None:
    _, prepared = _pair(toy_model, kind)
    together = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=())
    assert [generate(prepared, [prompt], max_new_tokens=NEW, end_ids=())[0] for prompt in PROMPTS] == together
    assert generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=(), max_tokens=40) == together
    assert generate(prepared, PROMPTS * 9, max_new_tokens=NEW, end_ids=()) == together * 9  # more than go at once


def test_the_number_of_new_tokens_is_kept_to(toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model, "llama")
    for count in (1, 2):
        made = generate(prepared, PROMPTS[:2], max_new_tokens=count, end_ids=())
        assert [one.ids for one in made] == [_theirs(reference, prompt, (), count) for prompt in PROMPTS[:2]]
    first = made[0].ids[0]
    ended = generate(prepared, PROMPTS[:1], max_new_tokens=1, end_ids=(first,))
    assert (ended[0].ids, ended[0].finished) == ((), True)
    assert generate(prepared, [], max_new_tokens=4, end_ids=()) == []


def test_an_end_in_the_very_last_place_counts_as_finished(toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model, "llama")
    full = next(made for made in (_theirs(reference, prompt, ()) for prompt in PROMPTS) if made[-1] not in made[:-1])
    prompt = next(prompt for prompt in PROMPTS if _theirs(reference, prompt, ()) == full)
    (made,) = generate(prepared, [prompt], max_new_tokens=NEW, end_ids=(full[-1],))
    assert (made.ids, made.finished) == (full[:-1], True)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_virtual_tokens_stand_before_every_prompt(kind: str, toy_model: Callable[..., Any]) -> None:
    reference, prepared = _pair(toy_model, kind)
    method = choose("methods", "prompt_tuning", num_virtual_tokens=6, init="random")
    torch.manual_seed(1)
    method.module.attach(prepared.model, method.config)
    (virtual,) = method.module.state(prepared.model).values()
    theirs = [_theirs(reference, prompt, (), prefix=virtual) for prompt in PROMPTS]
    prefix = method.module.prefix_tokens(prepared.model)
    ours = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=(), prefix=prefix)
    assert [made.ids for made in ours] == theirs
    assert theirs != [_theirs(reference, prompt, ()) for prompt in PROMPTS]


def test_each_step_is_told(toy_model: Callable[..., Any]) -> None:
    _, prepared = _pair(toy_model, "llama")
    free = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=())
    ends = (free[0].ids[0], free[1].ids[5], free[3].ids[3])
    heard: list[list[int]] = [[] for _ in PROMPTS]
    over: list[int] = []

    def listen(new: dict[int, int], done: list[int]) -> None:
        assert not set(new) & set(over)
        for row, token in new.items():
            heard[row].append(token)
        over.extend(done)

    made = generate(prepared, PROMPTS, max_new_tokens=NEW, end_ids=ends, on_tokens=listen)
    assert [tuple(tokens) for tokens in heard] == [one.ids for one in made]
    assert sorted(over) == list(range(len(PROMPTS)))


def _sample(prepared: Prepared, count: int, **how: Any) -> list[tuple[int, ...]]:
    made = generate(prepared, PROMPTS, max_new_tokens=count, end_ids=(), sampling=Sampling(**how))
    return [one.ids for one in made]


def test_sampling_follows_from_the_seed(toy_model: Callable[..., Any]) -> None:
    _, prepared = _pair(toy_model, "llama")
    first = _sample(prepared, 6, temperature=1.0, seed=4)
    torch.manual_seed(99)  # the run's own random numbers have no part in it
    before = torch.get_rng_state()
    assert _sample(prepared, 6, temperature=1.0, seed=4) == first
    assert _sample(prepared, 6, temperature=1.0, seed=5) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tiny_nucleus_or_temperature_is_greedy(toy_model: Callable[..., Any]) -> None:
    _, prepared = _pair(toy_model, "llama")
    greedy = _sample(prepared, 6)
    assert _sample(prepared, 6, temperature=1.0, top_p=1e-6) == greedy
    assert _sample(prepared, 6, temperature=1e-4) == greedy


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.7, 1.0), (1.0, 0.6), (0.7, 0.9)])
def test_draws_are_as_frequent_as_the_nucleus_says(
    temperature: float, top_p: float, toy_model: Callable[..., Any]
) -> None:
    reference, prepared = _pair(toy_model, "llama")
    prompt, draws = PROMPTS[0], 1500
    shares = torch.softmax(reference(torch.tensor([prompt])).logits[0, -1] / temperature, dim=-1).tolist()
    nucleus: dict[int, float] = {}
    for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
        if sum(nucleus.values()) >= top_p:
            break
        nucleus[token] = shares[token]
    assert 1 < len(nucleus) <= len(shares)

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=1)
    drawn = generate(prepared, [prompt] * draws, max_new_tokens=1, end_ids=(), sampling=sampling)
    counts = Counter(one.ids[0] for one in drawn)
    assert set(counts) <= set(nucleus)
    for token, share in nucleus.items():
        wanted = share / sum(nucleus.values())
        # Five standard deviations of a binomial count, and one draw for the rarest; with a fixed seed it cannot flake.
        allowed = 5 * math.sqrt(draws * wanted * (1 - wanted)) + 1
        assert abs(counts[token] - draws * wanted) <= allowed, (token, wanted)


@pytest.mark.parametrize(
    ("slots", "stay"),
    [
        ([5, 6, 7], [0, 1, 2]),
        ([None, 6, None, 8], [1, 3]),
        ([None, 6, 7, 8], [0, 1, 2, 3]),  # three would be a new number; the done one goes on
        ([None] * 6 + [6, 7, 8], [0, 6, 7, 8]),
        ([None, None], []),
    ],
)
def test_a_batch_shrinks_only_to_numbers_of_rows_seen_before(slots: list[int | None], stay: list[int]) -> None:
    assert generation._staying(slots) == stay

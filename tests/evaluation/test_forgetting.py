from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith.core.config import choose
from tunesmith.core.records import Message
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.evaluation import forgetting as room
from tunesmith.evaluation.forgetting import Base, forgetting, remember
from tunesmith.methods import prompt_tuning
from tunesmith.prompts.render import Template

ToyModel = Callable[..., PreTrainedModel]
PROMPTS = ["What is the capital of France?", "Say hello.", "Was the film funny, and why?"]
TEXTS = ["The plot was dull.", "Grüße aus Köln, wo die Sonne scheint."]


@pytest.fixture
def prepared(toy_model: ToyModel) -> Prepared:
    return prepare(toy_model("llama"), "float32")


@pytest.fixture
def template(toy_tokenizer: PreTrainedTokenizerBase) -> Template:
    return Template(toy_tokenizer)


@pytest.fixture
def base(prepared: Prepared, template: Template, monkeypatch: pytest.MonkeyPatch) -> Base:
    columns = {"prompt": PROMPTS, "text": TEXTS}
    monkeypatch.setattr(room, "_column", lambda file, key: columns[key])
    return remember(prepared, template)


def disturb(model: Any, size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def shares(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return scores


def test_every_general_prompt_is_answered_and_every_general_text_read(prepared: Prepared, template: Template) -> None:
    base = remember(prepared, template)
    assert (len(base.answers), len(base.texts), len(base.lengths)) == (64, 24, 24)
    assert base.bits_per_byte.n == 24


def test_the_base_itself_has_forgotten_nothing(prepared: Prepared, base: Base) -> None:
    lost = forgetting(prepared, base)
    assert (lost.kl, lost.rise) == (0.0, 0.0)
    assert lost.bits_per_byte == base.bits_per_byte


def test_the_base_answers_the_prompts_greedily(template: Template, toy_model: ToyModel, base: Base) -> None:
    plain = toy_model("llama")
    for prompt, row in zip(PROMPTS, base.answers, strict=True):
        begun = template.prompt((Message("user", prompt),))
        assert row.ids[: len(begun)] == begun
        likeliest = shares(plain, row.ids).argmax(-1).tolist()
        assert tuple(likeliest[len(begun) - 1 : -1]) == row.ids[len(begun) :]
        assert row.weights == (*([0.0] * len(begun)), *([1.0] * (len(row.ids) - len(begun))))
        assert len(row.ids) - len(begun) <= room.ANSWER_TOKENS + 1


@pytest.mark.parametrize("size", [0.003, 0.1])
def test_both_numbers_equal_what_is_computed_directly(
    size: float, prepared: Prepared, template: Template, toy_model: ToyModel, base: Base
) -> None:
    plain, tuned = toy_model("llama"), toy_model("llama")
    disturb(tuned, size)
    disturb(prepared.model, size)
    lost = forgetting(prepared, base)

    divergences = []
    for row in base.answers:
        p, q = shares(plain, row.ids), shares(tuned, row.ids)
        at = [place - 1 for place, weight in enumerate(row.weights) if weight]
        divergences += (p.exp() * (p - q)).sum(-1)[at].tolist()
    # What is remembered of the base is kept in half precision: 0.001 nats at a token.
    assert lost.kl == pytest.approx(sum(divergences) / len(divergences), rel=0.01, abs=2e-4)
    assert lost.kl > 0

    def bits(model: PreTrainedModel) -> float:
        nats = 0.0
        for text in TEXTS:
            ids = (template.end_ids[0], *template.tokenizer(text)["input_ids"])
            scores = shares(model, ids)
            nats -= sum(float(scores[place, token]) for place, token in enumerate(ids[1:]))
        return nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)

    assert lost.bits_per_byte.value == pytest.approx(bits(tuned), rel=1e-5)
    assert base.bits_per_byte.value == pytest.approx(bits(plain), rel=1e-5)
    assert lost.rise == pytest.approx(bits(tuned) - bits(plain), abs=1e-4)
    assert lost.bits_per_byte.n == len(TEXTS)


def test_the_further_from_the_base_the_more_is_lost(prepared: Prepared, base: Base) -> None:
    found = []
    for _ in range(3):
        disturb(prepared.model, 0.01)
        found.append(forgetting(prepared, base).kl)
    assert 0 < found[0] < found[1] < found[2]


def test_virtual_tokens_are_part_of_the_tuned_model(prepared: Prepared, base: Base) -> None:
    config = choose("methods", "prompt_tuning", num_virtual_tokens=4, init="random").config
    prompt_tuning.attach(prepared.model, config)
    lost = forgetting(prepared, base, prefix=prompt_tuning.prefix_tokens(prepared.model))
    assert lost.kl > 0
    assert lost.rise != 0
    prompt_tuning.detach(prepared.model)
    assert forgetting(prepared, base).kl == 0.0

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Labelled, Message
from tunesmith.engine import generation
from tunesmith.engine.generation import Generated, Sampling
from tunesmith.engine.prepare import prepare
from tunesmith.evaluation.answers import LOOKED_AT, Answerer, Prompting, shifted
from tunesmith.prompts.render import Template
from tunesmith.prompts.shots import as_messages

ToyModel = Callable[..., PreTrainedModel]
LABELS = ("negative", "positive", "so so")
ROWS = [
    Labelled("the film was wonderful", "positive"),
    Labelled("the plot was dull", "negative"),
    Labelled("what a strange film it was, and how long", "so so"),
    Labelled("great acting, bad jokes", "so so"),
]
Ask = Callable[..., Answerer]


@pytest.fixture
def ask(toy_model: ToyModel, toy_tokenizer: PreTrainedTokenizerBase) -> Ask:
    """An answerer of a task by the toy model: ``ask("chat")``."""
    prepared = prepare(toy_model("llama"), "float32")
    template = Template(toy_tokenizer)

    def make(name: str, **keys: Any) -> Answerer:
        return Answerer(prepared, template, choose("tasks", name, **keys))

    return make


@pytest.fixture
def classify(ask: Ask) -> Answerer:
    return ask("classification", labels=list(LABELS))


@pytest.fixture
def nats(toy_model: ToyModel) -> Callable[[Sequence[int], Sequence[int]], float]:
    """The log-probability of some ids after others, from transformers' own forward pass."""
    plain = toy_model("llama")

    def of(before: Sequence[int], after: Sequence[int]) -> float:
        with torch.no_grad():
            scores = plain(input_ids=torch.tensor([[*before, *after]])).logits[0].log_softmax(-1)
        return float(sum(scores[len(before) + place - 1, token] for place, token in enumerate(after)))

    return of


def test_labels_are_chosen_by_their_log_probabilities(classify: Answerer, nats: Callable[..., float]) -> None:
    answers = classify.answer(ROWS)
    prompts = classify.prompts(ROWS, Prompting())
    for prompt, output, found in zip(prompts, answers.outputs, answers.logprobs, strict=True):
        ids = classify.template.prompt(prompt)
        direct = [nats(ids, label) for label in classify.template.candidates(prompt, LABELS).ids]
        assert found == pytest.approx(direct, abs=1e-4)
        assert output == LABELS[max(range(3), key=direct.__getitem__)]
    right = [output == row.output for output, row in zip(answers.outputs, ROWS, strict=True)]
    assert answers.measured.value == sum(right) / 4
    assert [score.value for score in answers.scores] == [float(one) for one in right]
    assert set(answers.metrics) == {"accuracy", "f1"}


def test_probabilities_add_up_and_agree_with_the_outputs(classify: Answerer) -> None:
    answers = classify.answer(ROWS)
    shares = classify.probabilities(classify.prompts(ROWS, Prompting()), LABELS, Prompting())
    for row, output, logprobs in zip(shares, answers.outputs, answers.logprobs, strict=True):
        assert sum(row.values()) == pytest.approx(1.0)
        assert max(row, key=row.__getitem__) == output
        assert math.log(row["positive"] / row["negative"]) == pytest.approx(logprobs[1] - logprobs[0])


def test_offsets_are_taken_off_before_choosing(classify: Answerer) -> None:
    plain = classify.answer(ROWS)
    for place, label in enumerate(LABELS):
        offsets = tuple(-1000.0 if at == place else 0.0 for at in range(3))
        answers = classify.answer(ROWS, Prompting(offsets=offsets))
        assert answers.outputs == (label,) * 4
        assert answers.logprobs == plain.logprobs
        assert classify.rejudge(plain, ROWS, offsets) == answers.scores
    assert shifted([(1.0, 2.0)], (0.5, -1.0)) == [(0.5, 3.0)]
    assert shifted([(1.0, 2.0)], ()) == [(1.0, 2.0)]


class Oracle:
    """Stands in for the model: says a distribution over the labels for every question, and keeps what was asked."""

    def __init__(self, *shares: Sequence[float]) -> None:
        self.shares, self.asked = shares, list[str]()

    def __call__(self, prompts: Sequence[Any], *_: Any) -> tuple[tuple[float, ...], ...]:
        self.asked = [prompt[-1].content for prompt in prompts]
        # What the model gives to the labels is a small part of all it could say: 1 % here, 3 % there.
        return tuple(
            tuple(math.log(share * part) for share in row)
            for row, part in zip(self.shares, (0.01, 0.03, 0.02, 0.01), strict=False)
        )


def test_contextual_calibration_worked_out(classify: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Zhao et al. 2021: p_cf is the mean over content-free inputs, (0.6, 0.3, 0.1) here; W = diag(p_cf)^-1.
    oracle = Oracle((0.7, 0.2, 0.1), (0.5, 0.4, 0.1), (0.6, 0.3, 0.1))
    monkeypatch.setattr(Answerer, "label_logprobs", oracle)
    offsets = classify.calibration(Prompting(), "contextual", ROWS)
    assert offsets == pytest.approx([math.log(0.6), math.log(0.3), math.log(0.1)])
    empty = [Labelled(text) for text in ("N/A", "[MASK]", "")]
    assert oracle.asked == [prompt[-1].content for prompt in classify.prompts(empty, Prompting())]
    # p = (0.5, 0.35, 0.15) leans to the first label; p / p_cf = (0.83, 1.17, 1.5) is for the third.
    row = [math.log(0.5), math.log(0.35), math.log(0.15)]
    assert [math.exp(one) for one in shifted([row], offsets)[0]] == pytest.approx([0.5 / 0.6, 0.35 / 0.3, 1.5])


def test_batch_calibration_worked_out(classify: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Zhou et al. 2023: the leaning is the mean over real questions, (0.25, 0.5, 0.25) here.
    oracle = Oracle((0.1, 0.6, 0.3), (0.4, 0.4, 0.2), (0.3, 0.3, 0.4), (0.2, 0.7, 0.1))
    monkeypatch.setattr(Answerer, "label_logprobs", oracle)
    offsets = classify.calibration(Prompting(), "batch", ROWS)
    assert offsets == pytest.approx([math.log(0.25), math.log(0.5), math.log(0.25)])
    assert len(oracle.asked) == 4
    assert "the plot was dull" in oracle.asked[1]


def test_what_was_taken_off_before_does_not_count_in_a_calibration(classify: Answerer) -> None:
    fresh = classify.calibration(Prompting(), "batch", ROWS)
    assert classify.calibration(Prompting(offsets=(1.0, 2.0, 3.0)), "batch", ROWS) == fresh


def test_shots_are_earlier_turns(classify: Answerer) -> None:
    shots = (Labelled("so funny", "positive"), Labelled("so weak", "negative"))
    [prompt] = classify.prompts(ROWS[:1], Prompting(shots))
    assert [turn.role for turn in prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn.content for turn in prompt[1::2]] == ["positive", "negative"]
    assert prompt[-1] == classify.prompts(ROWS[:1], Prompting())[0][-1]
    plain, more = classify.answer(ROWS[:1]), classify.answer(ROWS[:1], Prompting(shots))
    assert more.prompt_tokens > plain.prompt_tokens == len(classify.template.prompt(prompt[-1:]))


def test_similar_shots_are_picked_for_each_row_from_the_pool(classify: Answerer) -> None:
    pool = (
        Labelled("a dull plot", "negative"),
        Labelled("wonderful film", "positive"),
        Labelled("long and dull", "so so"),
    )
    first, second = classify.prompts(ROWS[:2], Prompting(pool, similar=1))
    assert "wonderful film" in first[0].content
    assert "a dull plot" in second[0].content


def test_a_question_too_long_for_the_context_is_shortened(classify: Answerer) -> None:
    limit = 512 - classify.task.module.max_new_tokens(classify.task.config)
    [prompt] = classify.prompts([Labelled("wonderful " * 400, "positive")], Prompting(prefix=(400, 401)))
    assert limit - 80 < len(classify.template.prompt(prompt)) <= limit - 2
    assert "…" in prompt[-1].content
    with pytest.raises(Mistake, match=r"rows\.csv:3: \d+ tokens with its examples; the context leaves"):
        classify.prompts(
            [Labelled("great", "positive", source="rows.csv:3")], Prompting((Labelled("wonderful " * 400, "positive"),))
        )


def test_free_text_is_written_and_judged(ask: Ask) -> None:
    answerer = ask("generation", max_new_tokens=6)
    rows = [Labelled("say film", "film"), Labelled("say great plot", "great plot")]
    answers = answerer.answer(rows)
    ids = [answerer.template.prompt(prompt) for prompt in answerer.prompts(rows, Prompting())]
    made = generation.generate(answerer.prepared, ids, max_new_tokens=6, end_ids=answerer.template.end_ids)
    assert answers.outputs == tuple(answerer.template.decode(one.ids).strip() for one in made)
    assert answers.metric == "rouge_l"
    assert answers.logprobs == ()
    assert answers.prompt_tokens == sum(map(len, ids)) / 2
    assert answers.seconds_per_query == pytest.approx(answers.seconds / 2)


TALKS = [
    Chat(
        (
            Message("user", f"hello {n}"),
            Message("assistant", "hello to you"),
            Message("user", "good?"),
            Message("assistant", "great"),
        )
    )
    for n in range(10)
]


def test_conversations_are_measured_by_their_likelihood(ask: Ask, nats: Callable[..., float]) -> None:
    answerer = ask("chat", max_new_tokens=2)
    answers = answerer.answer(TALKS[:2])
    assert answers.metric == "perplexity"
    total, count = 0.0, 0
    for talk in TALKS[:2]:
        row = answerer.template.conversation(talk.messages)
        for place, weight in enumerate(row.weights):
            total -= nats(row.ids[:place], row.ids[place : place + 1]) if weight else 0.0
            count += weight > 0
    assert sum(score.weight for score in answers.scores) == count
    assert answers.measured.value == pytest.approx(math.exp(total / count), rel=1e-5)


def test_of_many_conversations_only_a_few_are_answered_in_words(ask: Ask) -> None:
    answers = ask("chat", max_new_tokens=1).answer(TALKS)
    assert len(answers.outputs) == LOOKED_AT < len(answers.scores) == len(TALKS)


def test_shots_come_before_a_conversation_and_are_not_scored(ask: Ask, nats: Callable[..., float]) -> None:
    answerer = ask("chat", max_new_tokens=1)
    [plain], [after] = (
        answerer.likelihoods(TALKS[:1], prompting) for prompting in (Prompting(), Prompting((TALKS[1],)))
    )
    assert after.weight == plain.weight
    row = answerer.template.conversation(as_messages([TALKS[1].messages], TALKS[0].messages))
    wanted = -sum(nats(row.ids[:at], row.ids[at : at + 1]) for at, weight in enumerate(row.weights) if weight)
    assert after.value != pytest.approx(plain.value)
    assert after.value == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("written", "reply"),
    [
        ("The film was great.", "The film was great."),
        ("  two words \n\n", "two words"),
        ("schön, 电影!", "schön, 电影!"),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_pieces_of_a_reply_join_to_it(
    written: str, reply: str, classify: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = classify.template.tokenizer(written)["input_ids"]

    def generate(*_: Any, on_tokens: Any, **__: Any) -> list[Generated]:
        for token in ids:
            on_tokens({0: token}, [])
        on_tokens({}, [0])
        return [Generated(tuple(ids), True)]

    monkeypatch.setattr(generation, "generate", generate)
    pieces: list[str] = []
    talk = [Message("user", "hello")]
    whole = classify.converse(talk, Prompting(), max_new_tokens=99, sampling=Sampling(), on_text=pieces.append)
    assert whole == reply
    assert "".join(pieces) == reply
    assert all(pieces)
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) > 1 or len(reply) < 2
    assert classify.converse(talk, Prompting(), max_new_tokens=99, sampling=Sampling()) == reply


def test_a_character_cut_in_half_by_the_limit_is_still_joined(
    classify: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = classify.template.tokenizer("a电")["input_ids"][:2]

    def generate(*_: Any, on_tokens: Any, **__: Any) -> list[Generated]:
        for token in half:
            on_tokens({0: token}, [])
        return [Generated(tuple(half), False)]

    monkeypatch.setattr(generation, "generate", generate)
    pieces: list[str] = []
    whole = classify.converse(
        [Message("user", "hello")], Prompting(), max_new_tokens=2, sampling=Sampling(), on_text=pieces.append
    )
    assert "".join(pieces) == whole
    assert whole.startswith("a")

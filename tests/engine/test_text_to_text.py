"""Text-to-text models: the same numbers and the same words as transformers gives, whatever the rows are packed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.forward import forward
from tunesmith.engine.generation import Sampling, generate
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.scoring import candidate_logprobs, distributions, sequence_logprobs

PROMPTS = ((5, 81, 9, 2), (5, 81, 9, 300, 17, 44, 2), (7, 2), (90, 91, 92, 93, 94, 95, 96, 97, 2))
ANSWERS = ((31, 2), (40, 41, 42, 2), (33, 34, 2), (2,))
END = 2
Make = Callable[..., Prepared]


def row(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Encoded:
    return Encoded((*prompt, *answer), (*([0.0] * len(prompt)), *([1.0] * len(answer))))


ROWS = [row(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]


@pytest.fixture(params=["t5", "flan"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ready(toy_model: Callable[..., Any], kind: str) -> Prepared:
    return prepare(toy_model(kind), "float32")


def expected(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities of an answer, by transformers' own model, a row alone and unpadded."""
    scores = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer])).logits[0]
    return scores.log_softmax(-1)[range(len(answer)), answer]


@torch.no_grad()
def test_log_probabilities_are_those_of_transformers(toy_model: Callable[..., Any], ready: Prepared, kind: str) -> None:
    plain = toy_model(kind)
    wanted = torch.cat([expected(plain, prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)])
    terms = forward(ready, pack(ROWS, share=False))
    torch.testing.assert_close(terms.logprobs, wanted, rtol=1e-5, atol=1e-5)
    # Rows that share a beginning in the pack are recovered all the same.
    torch.testing.assert_close(forward(ready, pack(ROWS)).logprobs, wanted, rtol=1e-5, atol=1e-5)


def test_likeliest_tokens_count_as_correct(ready: Prepared) -> None:
    (made,) = generate(ready, PROMPTS[:1], max_new_tokens=4, end_ids=(END,))
    terms = forward(ready, pack([row(PROMPTS[0], made.ids), row(PROMPTS[0], (made.ids[0] + 1,))], share=False))
    assert terms.correct.tolist() == [*[True] * len(made.ids), False]


def test_sums_do_not_depend_on_how_rows_are_packed(ready: Prepared) -> None:
    together, counts = sequence_logprobs(ready, ROWS)
    apart, _ = sequence_logprobs(ready, ROWS, max_tokens=1)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
    assert counts.tolist() == [2, 4, 3, 1]


def test_a_prompt_is_read_once_for_all_its_candidates(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    encoder = ready.model.get_encoder()
    encoder.register_forward_pre_hook(lambda _, args, keys: read.append(len(keys["input_ids"])), with_kwargs=True)
    candidates = [[(31,), (40, 41)]] * len(PROMPTS)
    found = candidate_logprobs(ready, PROMPTS, candidates)
    assert sum(read) == len(PROMPTS)
    alone, _ = sequence_logprobs(ready, [row(prompt, answer) for prompt in PROMPTS for answer in candidates[0]])
    torch.testing.assert_close(found.flatten(), alone, rtol=1e-5, atol=1e-5)


def test_distributions_come_in_the_order_of_rows(ready: Prepared) -> None:
    found = distributions(ready, ROWS, max_tokens=1)
    sums, _ = sequence_logprobs(ready, ROWS)
    labels = [token for answer in ANSWERS for token in answer]
    owner = [place for place, answer in enumerate(ANSWERS) for _ in answer]
    chosen = found[range(len(labels)), labels].double()
    # Half precision: 8 nats are kept to 0.004.
    added = torch.zeros(4).double().index_add(0, torch.tensor(owner), chosen)
    torch.testing.assert_close(added, sums, rtol=0, atol=2e-2)


@torch.no_grad()
def test_greedy_answers_are_those_of_transformers(toy_model: Callable[..., Any], ready: Prepared, kind: str) -> None:
    plain = toy_model(kind)
    wanted = []
    for prompt in PROMPTS:
        made = plain.generate(input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, 1:].tolist()
        wanted.append(tuple(made[: made.index(END)] if END in made else made))
    made = generate(ready, PROMPTS, max_new_tokens=12, end_ids=(END,))
    assert [one.ids for one in made] == wanted
    alone = [generate(ready, [prompt], max_new_tokens=12, end_ids=(END,))[0] for prompt in PROMPTS]
    assert alone == made


def test_rows_leave_as_they_finish_and_the_others_go_on(ready: Prepared) -> None:
    whole = generate(ready, PROMPTS, max_new_tokens=12, end_ids=())
    ends = tuple({whole[place].ids[place + 1] for place in range(3)} - set(whole[3].ids[:6]))
    assert ends
    heard: list[tuple[dict[int, int], list[int]]] = []
    cut = generate(
        ready, PROMPTS, max_new_tokens=12, end_ids=ends, on_tokens=lambda new, done: heard.append((new, list(done)))
    )
    for before, after in zip(whole, cut, strict=True):
        stop = next((place for place, token in enumerate(before.ids) if token in ends), 12)
        assert (after.ids, after.finished) == (before.ids[:stop], stop < 12)
    assert len({len(one.ids) for one in cut}) > 1
    assert [new[3] for new, _ in heard if 3 in new] == list(cut[3].ids)
    assert sorted(place for _, done in heard for place in done) == [0, 1, 2, 3]


def test_sampling_follows_from_its_seed(ready: Prepared) -> None:
    def sampled(seed: int) -> list[Any]:
        return generate(ready, PROMPTS, max_new_tokens=8, end_ids=(END,), sampling=Sampling(1.0, 0.95, seed))

    assert sampled(1) == sampled(1) != sampled(2)


def test_an_answer_that_is_not_all_at_the_end_is_refused(ready: Prepared) -> None:
    chat = Encoded((5, 6, 7, 8, 9, 2), (0.0, 1.0, 0.0, 0.0, 1.0, 1.0))
    with pytest.raises(Mistake, match=r"one answer at the end of a row.*`train: false`"):
        forward(ready, pack([chat]))
    with pytest.raises(Mistake, match="one answer at the end"):
        forward(ready, pack([Encoded((5, 6, 7, 8), (0.0, 1.0, 1.0, 0.0))]))


def test_the_residual_stream_is_float32_where_products_are_bfloat16(toy_model: Callable[..., Any], kind: str) -> None:
    plain, ready = toy_model(kind), prepare(toy_model(kind).requires_grad_(False), "bfloat16")
    assert ready.model.encoder.block[0].layer[0].SelfAttention.q.weight.dtype == torch.bfloat16
    assert ready.model.encoder.block[0].layer[0].layer_norm.weight.dtype == torch.float32
    seen: set[torch.dtype] = set()
    for block in (*ready.model.encoder.block, *ready.model.decoder.block):
        block.register_forward_hook(lambda _, args, output: seen.add(output[0].dtype))
    terms = forward(ready, pack(ROWS, share=False))
    assert seen == {torch.float32}
    wanted = forward(prepare(plain, "float32"), pack(ROWS, share=False)).logprobs
    # Products keep eight bits of each factor; log-probabilities here reach 20 nats.
    torch.testing.assert_close(terms.logprobs, wanted, rtol=1e-2, atol=0.05)


@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "prompt_tuning"])
def test_training_learns_and_is_estimated(make_job: Callable[..., Job], kind: str, method: str, tmp_path: Any) -> None:
    keys: dict[str, Any] = {"name": method}
    keys |= {"init": "vocabulary", "num_virtual_tokens": 8} if method == "prompt_tuning" else {}
    rows = [row(prompt, (prompt[0], END)) for prompt in PROMPTS]
    job = make_job(
        tmp_path, kind=kind, method=keys, train=rows, validation=rows, num_train_epochs=30, learning_rate=0.02
    )
    estimate = job.receipt()["memory_estimate_mb"]
    assert estimate["total"] > estimate["held"]
    before = job.validation_loss()
    done = fit(job)
    assert done.best_loss < before - 0.3
    assert job.validation_loss() == pytest.approx(done.best_loss, abs=1e-5)

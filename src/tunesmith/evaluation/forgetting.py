"""What a tuned model lost: its distance from the base on general prompts, and how much worse it reads general text.

Two numbers, both 0 for the base itself. *KL*: the base answers sixty-odd general prompts; at each token of its
answers the divergence KL(base ‖ tuned) says how far the tuned model would stray (the measure of the KL leash in RLHF,
Stiennon et al. 2020, arXiv 2009.01325). *Bits per byte*: the cross-entropy of general text in bits a byte of UTF-8,
minus the base's.

An encoder writes nothing; of it the *drift* is measured: 1 minus the cosine between its embedding of a general text and
the base's, on average, 0 for the base itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.records import Encoded, Message, Score
from tunesmith.metrics._measure import Measurement, measure
from tunesmith.models.load import context_length

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.engine.prepare import Prepared
    from tunesmith.prompts.render import Template

ANSWER_TOKENS = 16
"""Tokens of each of the base's answers that are compared."""

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Mean KL from the base (nats a token), general text's bits per byte, and their rise over the base's."""

    kl: float
    bits_per_byte: Measurement
    rise: float


@dataclass(frozen=True, slots=True)
class Base:
    """What is remembered of the base before it is tuned."""

    answers: tuple[Encoded, ...]
    distributions: Tensor
    texts: tuple[Encoded, ...]
    lengths: tuple[int, ...]
    bits_per_byte: Measurement


def remember(prepared: Prepared, template: Template) -> Base:
    """Let the untuned model answer the general prompts and read the general texts, and keep what it did.

    Keeps `[answer tokens, vocabulary]` log-probabilities in half precision: 64 × 16 × 49,152 × 2 bytes, 100 MB.
    """
    from tunesmith.engine.generation import generate
    from tunesmith.engine.scoring import distributions

    prompts = [template.prompt((Message("user", prompt),)) for prompt in _column("general_prompts.jsonl", "prompt")]
    made = generate(prepared, prompts, max_new_tokens=ANSWER_TOKENS, end_ids=template.end_ids)
    end = next(iter(template.end_ids))
    answers = []
    for prompt, one in zip(prompts, made, strict=True):
        ids = (*one.ids, end) if one.finished else one.ids
        answers.append(Encoded((*prompt, *ids), (*([0.0] * len(prompt)), *([1.0] * len(ids)))))
    texts = _column("general_text.jsonl", "text")
    encoded = tuple(_encode(template, text) for text in texts)
    lengths = tuple(len(text.encode()) for text in texts)
    return Base(
        tuple(answers), distributions(prepared, answers), encoded, lengths, _bits(prepared, encoded, lengths, ())
    )


def forgetting(prepared: Prepared, base: Base, *, prefix: Sequence[int] = ()) -> Forgetting:
    """How far the model, as it is now, has moved from what was remembered of it."""
    from tunesmith.engine.scoring import distributions, divergence

    now = distributions(prepared, base.answers, prefix=prefix)
    bits = _bits(prepared, base.texts, base.lengths, prefix)
    return Forgetting(float(divergence(base.distributions, now).mean()), bits, bits.value - base.bits_per_byte.value)


def embedded(prepared: Prepared, tokenizer: Any, *, prefix: Sequence[int] = ()) -> Tensor:
    """An encoder's embeddings of the general texts, `[texts, hidden]`: means over the tokens, as far as it sees."""
    from tunesmith.engine.pooling import embeddings
    from tunesmith.prompts.documents import wholes

    length = min(tokenizer.model_max_length, context_length(prepared.model.config)) - len(prefix)
    rows, _ = wholes(tokenizer, _column("general_text.jsonl", "text"), max_length=length)
    return embeddings(prepared, rows, prefix=prefix)


def drift(base: Tensor, tuned: Tensor) -> float:
    """How far embeddings `[texts, hidden]` have turned away from the base's: mean of 1 - cosine, from 0 to 2."""
    from torch.nn.functional import cosine_similarity

    return float((1 - cosine_similarity(base.double(), tuned.double())).mean().clamp(min=0.0))


def replay_prompts() -> list[str]:
    """General prompts that forgetting is not measured on: a training may use the base's answers to them."""
    return _column("replay_prompts.jsonl", "prompt")


def _bits(prepared: Prepared, texts: Sequence[Encoded], lengths: Sequence[int], prefix: Sequence[int]) -> Measurement:
    from tunesmith.engine.scoring import sequence_logprobs

    sums, _ = sequence_logprobs(prepared, texts, prefix=prefix, max_tokens=1024)
    scores = [Score(-float(total), weight=length) for total, length in zip(sums, lengths, strict=True)]
    return measure("bits_per_byte", scores)


def _encode(template: Template, text: str) -> Encoded:
    """The text's tokens after one end token, so that its first token is predicted as well."""
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return Encoded((next(iter(template.end_ids)), *ids), (0.0, *([1.0] * len(ids))))


def _column(file: str, key: str) -> list[str]:
    return [json.loads(line)[key] for line in (_HERE / file).read_text(encoding="utf-8").splitlines()]

"""Run by generate_throughput.py: what the next token's distribution loses when few rows read weights of 8 bits."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import _peers
import torch
from torch import Tensor

from tunesmith.core import environment
from tunesmith.core.records import Encoded
from tunesmith.engine.cache import Cache
from tunesmith.engine.decoding import decoder_of
from tunesmith.engine.forward import logits
from tunesmith.engine.generation import generate
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared
from tunesmith.recipes._work import open_model


def along(prepared: Prepared, prompt: list[int], path: tuple[int, ...]) -> Tensor:
    """Log-probabilities `[tokens, vocabulary]` after each token of `path`, fed one at a time."""
    batch = pack([Encoded((*prompt, 0), (*([0.0] * len(prompt)), 1.0))])
    cache = Cache(batch.ways, torch.tensor([len(prompt)]))
    logits(prepared, batch, batch.index, cache)
    decode, found = decoder_of(prepared), []
    assert decode is not None
    for token in path:
        cache.make_room()
        found.append(decode(torch.tensor([token]), cache).log_softmax(-1)[0])
        cache.lengths = cache.lengths + 1
    return torch.stack(found)


@torch.inference_mode()
def main() -> None:
    """Print the mean KL(bfloat16 ‖ int8), nats a token, and how many likeliest tokens stay, along bfloat16's own."""
    given: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    rounded = open_model(_peers.MODEL, "int8").prepared
    plain = replace(rounded, eighths=None)
    apart: list[float] = []
    same = 0
    for prompt in given["ids"] + given["warm_ids"]:
        path = generate(plain, [prompt], max_new_tokens=given["new"], end_ids=())[0].ids
        p, q = (along(one, prompt, path) for one in (plain, rounded))
        apart += (p.exp() * (p - q)).sum(-1).tolist()
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    print(json.dumps({"kl": sum(apart) / len(apart), "same": same / len(apart), "tokens": len(apart)}))


if __name__ == "__main__":
    environment.prepare()
    main()

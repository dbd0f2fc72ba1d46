"""What it brings to compute a common beginning once: training with an instruction, scoring behind shots, and lm-eval.

    .venv/bin/python benchmarks/shared_prefix.py [--json]

Rows of SST-2. Training: LoRA r=16, an instruction of 40 tokens, 32 rows a step. Scoring: 8 shots, both labels of every
row. "Without sharing" is Tunesmith with every row laid down whole; the last peer is lm-eval's `hf` backend scoring the
same contexts and continuations in bfloat16, in batches of 8. The scores are compared too.
`ours` and `peer` are rows a second beside lm-eval.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import _peers

from tunesmith.core import environment

DATA = _peers.DATA / "sentiment" / "sst2.train.tsv"
INSTRUCTION = (
    "Below is a sentence from a review of a movie. Read it with care, think of what its writer felt on leaving the "
    "cinema, and say whether the review is negative or positive. Answer with one word."
)
LABELS = ("negative", "positive")


def main() -> int:
    """Measure the three and print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--rows", type=int, default=32, help="rows scored")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--shots", type=int, default=8)
    asked = parser.parse_args()
    _peers.need_data(DATA)
    environment.prepare()
    from tunesmith.core.config import resolve
    from tunesmith.recipes._bench import encode
    from tunesmith.recipes._work import open_model, read_examples

    task = {"name": "classification", "instruction": INSTRUCTION, "labels": list(LABELS)}
    project = resolve({"model": _peers.MODEL, "task": task, "data": {"train": str(DATA), "validation": 0.1}})
    project, examples = read_examples(project)
    model = open_model(project.model)
    encoded, _ = encode(project, model, examples.train[: 32 * asked.steps])
    scored = scoring(project, model, examples, asked.rows, asked.shots)
    alone, together = (score(model.prepared, scored["rows"], share=share) for share in (False, True))
    trained = {share: train(project, model.prepared, encoded, share=share) for share in (False, True)}
    from tunesmith.models.source import fetch

    given = {
        "model": str(fetch(_peers.MODEL)),
        "contexts": scored["contexts"],
        "continuations": scored["continuations"],
    }
    peer = _peers.child(_peers.python_of("lm_eval"), _peers.HERE / "_lm_eval.py", **given)
    apart = max(abs(a - b) for a, b in zip(together["logprobs"], peer["logprobs"], strict=True))
    speeds = {
        "training": (trained[True], trained[False]),
        "scoring behind shots": (asked.rows / together["seconds"], asked.rows / alone["seconds"]),
        "lm-eval": (asked.rows / together["seconds"], asked.rows / peer["seconds"]),
    }
    lines = [
        f"{name:22s} {a:7.1f} rows/s beside {b:6.1f}   {a / b:.2f} times as fast" for name, (a, b) in speeds.items()
    ]
    lines.append(f"largest difference of a score from lm-eval's: {apart:.3f} nats (both at bfloat16 products)")
    ours, theirs = speeds["lm-eval"]
    return _peers.told(asked, ours, theirs, ours / theirs, "rows/s", lines, speeds=speeds, apart=apart)


def train(project: Any, prepared: Any, rows: Sequence[Any], *, share: bool) -> float:
    """Median rows a second of LoRA steps of 32 rows, the first left out."""
    import torch

    from tunesmith.engine import optimizers
    from tunesmith.engine.loop import Guard, Plan, run
    from tunesmith.engine.packing import pack

    method = project.method if project.method.name == "lora" else None
    assert method is not None
    torch.manual_seed(0)
    method.module.attach(prepared.model, method.config)
    trained = [parameter for parameter in prepared.model.parameters() if parameter.requires_grad]
    optimizer = optimizers.make("adamw", trained, learning_rate=2e-4)
    steps, objective = len(rows) // 32, project.objective
    guard, times = Guard(trained, optimizer), [time.perf_counter()]
    stepping = run(
        prepared,
        objective.module,
        objective.config,
        lambda step: [pack(rows[32 * (step - 1) : 32 * step], share=share)],
        optimizer,
        Plan(steps, 2e-4),
        guard,
    )
    times.extend(time.perf_counter() for _ in stepping)
    method.module.detach(prepared.model)
    return statistics.median(32 / (b - a) for a, b in list(pairwise(times))[1:])


def scoring(project: Any, model: Any, examples: Any, rows: int, shots: int) -> dict[str, Any]:
    """Both labels of every row behind the same shots: as encoded rows, and as text for lm-eval."""
    from tunesmith.core.records import Encoded
    from tunesmith.prompts.shots import Shots, as_messages

    task = project.task
    chosen = Shots(examples.train).choose(None, shots, "balanced", 0)
    turns = [task.module.conversation(shot, task.config) for shot in chosen]
    asked = [as_messages(turns, task.module.prompt(record, task.config)) for record in examples.validation[:rows]]
    prompts = [tuple(one) for one in model.template.prompts(asked)]
    tokenizer = model.loaded.tokenizer
    answers = [tuple(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in LABELS]
    encoded = [
        Encoded((*prompt, *answer), (0.0,) * len(prompt) + (1.0,) * len(answer))
        for prompt in prompts
        for answer in answers
    ]
    contexts = [list(prompt) for prompt in prompts for _ in answers]
    return {"rows": encoded, "contexts": contexts, "continuations": [list(a) for _ in prompts for a in answers]}


def score(prepared: Any, rows: Sequence[Any], *, share: bool) -> dict[str, Any]:
    """Sums of log-probabilities of every row, and the seconds they took; a small pack first to warm up."""
    import torch

    from tunesmith.engine.forward import forward
    from tunesmith.engine.packing import packs
    from tunesmith.engine.scoring import MAX_TOKENS

    sums = [0.0] * len(rows)
    with torch.inference_mode():
        for counted in (rows[:2], rows):
            begun = time.perf_counter()
            for group, batch in packs(counted, max_tokens=MAX_TOKENS, share=share):
                terms = forward(prepared, batch)
                found = torch.zeros(len(group)).index_add_(0, batch.row, terms.logprobs * batch.weights)
                for place, value in zip(group, found.tolist(), strict=True):
                    sums[place] = value
    return {"seconds": time.perf_counter() - begun, "logprobs": sums}


if __name__ == "__main__":
    sys.exit(main())

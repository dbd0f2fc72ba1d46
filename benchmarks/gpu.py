"""LoRA on one GPU: tokens a second, memory, and share of the chip's product rate, beside TRL and peft.

    .venv/bin/python benchmarks/gpu.py [--shape 1b|8b|tiny] [--steps 8] [--json]

Llama-shaped models with random weights, made on the spot, so no network is needed: 1b is 16 layers of 2,048, 8b 32
layers of 4,096 with 8 key heads. Rows of 1,024 random tokens, a quarter of them trained, 8 rows a step. TRL runs in
bfloat16 with and without gradient checkpointing, with packed sequences off, with liger-kernel where `--liger` is given.
`tiny` runs on a CPU too, to see that the script works; its figures mean nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import _peers

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
VOCABULARY, LENGTH, ROWS_A_STEP = 32_000, 1024, 8


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """Train with Tunesmith's loop on random rows; the end of each step and the peak of the GPU (or process)."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tunesmith.core.config import resolve
    from tunesmith.core.machine import peak_mb
    from tunesmith.core.progress import quiet
    from tunesmith.core.records import Encoded
    from tunesmith.engine.fit import Job, fit
    from tunesmith.engine.prepare import prepare

    torch.manual_seed(0)
    automatic: Any = AutoModelForCausalLM
    model = automatic.from_config(LlamaConfig(**given["config"]), dtype=torch.bfloat16).requires_grad_(False)
    project = resolve({"model": "-", "task": "generation", "data": {"train": "-"}, "method": "lora"})
    project = project.model_copy(update={"per_device_train_batch_size": ROWS_A_STEP})
    prepared = prepare(model)
    project.method.module.attach(model, project.method.config)
    rows = [
        Encoded(tuple(ids), (0.0,) * given["prompt"] + (1.0,) * (len(ids) - given["prompt"])) for ids in given["rows"]
    ]
    times: list[float] = []

    def note(_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    with quiet():
        fit(Job(prepared, project, rows, steps=given["steps"]), note)
    on_gpu = torch.cuda.is_available()
    return {"times": times, "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_mb()}


def rate() -> float:
    """Products of the chip, FLOP/s: the best of twenty of 8,192 in bfloat16 (2,048 on a CPU)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    one = torch.randn(size, size, device=device).bfloat16()
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def main() -> int:
    """Run ours and TRL one after the other and print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--liger", action="store_true", help="TRL with liger-kernel, which must be in its environment")
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, ours)
    import torch

    if not torch.cuda.is_available() and asked.shape != "tiny":
        raise SystemExit("no GPU here; --shape tiny shows on a CPU that the script works")
    config = SHAPES[asked.shape] | {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2 * LENGTH,
        "num_key_value_heads": min(8, SHAPES[asked.shape]["num_attention_heads"]),
    }
    length = LENGTH if asked.shape != "tiny" else 64
    made = torch.randint(
        10, VOCABULARY, (asked.steps * ROWS_A_STEP, length), generator=torch.Generator().manual_seed(0)
    )
    given = {"config": config, "rows": made.tolist(), "prompt": length * 3 // 4, "steps": asked.steps, "method": "lora"}
    peer = {**given, "weights": [[0] * given["prompt"] + [1] * (length - given["prompt"])] * len(made)}
    peer["rows"] = [{"ids": ids, "weights": w} for ids, w in zip(given["rows"], peer["weights"], strict=True)]
    peer |= {"rows_a_step": ROWS_A_STEP, "liger": asked.liger}
    trl, script = _peers.python_of("trl"), _peers.HERE / "_trl_sft.py"
    runs = {
        "Tunesmith": _peers.child(sys.executable, Path(__file__), "--ours", **given),
        "TRL, its defaults": _peers.child(trl, script, **peer, checkpointing=True),
        "TRL, no gradient checkpointing": _peers.child(trl, script, **peer, checkpointing=False),
    }
    speeds = {name: ROWS_A_STEP * length / _median(run["times"]) for name, run in runs.items()}
    mine, best = speeds["Tunesmith"], max(speed for name, speed in speeds.items() if name != "Tunesmith")
    parameters = _parameters(config)
    share = 4 * parameters * mine / rate()
    lines = [
        f"{name:32s} {speed:9,.0f} tokens/s {runs[name]['peak_mb'] / 1000:6.1f} GB   ours is {mine / speed:.2f} times "
        "as fast"
        for name, speed in speeds.items()
    ]
    lines.append(f"{parameters / 1e9:.2f} billion parameters; ours reaches {share:.0%} of the chip's product rate")
    return _peers.told(asked, mine, best, mine / best, "tokens/s", lines, runs=runs, share=share, shape=asked.shape)


def _median(times: list[float]) -> float:
    return statistics.median(b - a for a, b in list(pairwise(times))[1:])


def _parameters(config: dict[str, int]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    attention = hidden * hidden * 2 + 2 * hidden * (hidden // heads) * config["num_key_value_heads"]
    layer = attention + 3 * hidden * config["intermediate_size"]
    return config["num_hidden_layers"] * layer + 2 * config["vocab_size"] * hidden


if __name__ == "__main__":
    sys.exit(main())

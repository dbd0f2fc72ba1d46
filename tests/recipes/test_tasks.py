"""Tasks from file to report: unequal classes, several labels a row, conversations with a system prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.records import Message
from tunesmith.recipes._bench import encode_training
from tunesmith.recipes._work import open_model, read_examples

ToyTask = Callable[..., dict[str, Any]]


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


@pytest.fixture
def unequal(toy_task: ToyTask) -> Callable[..., dict[str, Any]]:
    """A task of 114 good films and 6 bad ones, with more keys for the task."""
    rows = [{"text": f"the film was great {number}", "label": "positive"} for number in range(114)]
    rows += [{"text": f"the film was dull {number}", "label": "negative"} for number in range(6)]
    data = {"train": write("unequal.jsonl", rows), "validation": write("few.jsonl", rows), "test": 0.0}
    task = {"name": "classification", "instruction": "positive or negative?", "labels": ["negative", "positive"]}

    def make(**keys: Any) -> dict[str, Any]:
        return toy_task(task=task | keys, data=data, max_steps=2)

    return make


def test_balanced_weights_go_into_the_loss_and_the_receipt(unequal: Callable[..., dict[str, Any]]) -> None:
    project, examples = read_examples(tunesmith.load(unequal(class_weights="balanced")))
    rows, told = encode_training(project, open_model(project.model, "float32"), examples.train)
    assert told["rows_by_label"] == {"positive": 114, "negative": 6}
    assert told["class_weights"] == pytest.approx({"positive": 120 / 228, "negative": 120 / 12})
    assert "rows_repeated" not in told
    weights = [max(row.weights) for row in rows]
    assert sorted(set(weights)) == pytest.approx([120 / 228, 10.0])
    assert weights.count(10.0) == 6


def test_balanced_sampling_repeats_rare_rows_and_says_so(unequal: Callable[..., dict[str, Any]]) -> None:
    result = tunesmith.train(unequal(sampling="balanced"))
    receipt = json.loads(Path("runs/toy/receipt.json").read_text(encoding="utf-8"))
    assert receipt["rows"] == 2 * 114
    assert receipt["rows_repeated"] == 114 - 6
    assert result["metrics"].keys() == {"accuracy", "f1"}
    assert "95 % of the rows are positive" in result["caution"]
    assert "95 % of the rows are positive" in Path("runs/toy/report.html").read_text(encoding="utf-8")


def test_several_labels_a_row_from_file_to_metrics(toy_task: ToyTask) -> None:
    words = {"funny": "comedy", "sad": "drama", "long": "epic"}
    sets = [("funny",), ("sad",), ("long", "sad"), ("funny", "long"), ()]
    rows = [
        {"text": f"a {' and '.join(chosen) or 'plain'} film {number}", "genres": [words[word] for word in chosen]}
        for number in range(8)
        for chosen in sets
    ]
    data = {"train": write("genres.jsonl", rows), "validation": 0.2, "test": 0.0}
    task = {"name": "multi_label", "class_weights": "balanced", "max_new_tokens": 12}
    result = tunesmith.train(toy_task(task=task, data=data, num_train_epochs=8, learning_rate=2e-2))
    assert set(result["task"]["labels"]) == {"comedy", "drama", "epic"}
    assert result["metrics"].keys() == {"f1_micro", "f1", "accuracy"}
    assert result["value"] > 0.5
    receipt = json.loads(Path("runs/toy/receipt.json").read_text(encoding="utf-8"))
    assert receipt["class_weights"].keys() == {"comedy", "drama", "epic", "none"}


def test_generation_tells_how_expected_the_reference_is(toy_task: ToyTask) -> None:
    rows = [{"instruction": f"Repeat {number}", "input": "", "output": f"film {number}"} for number in range(30)]
    data = {"train": write("alpaca.jsonl", rows), "validation": 0.2, "test": 0.0}
    task = toy_task(task={"name": "generation", "max_new_tokens": 8}, data=data)
    plain = tunesmith.evaluate(task, split="validation")
    tuned = tunesmith.train(task | {"num_train_epochs": 3})
    assert plain["metrics"].keys() == tuned["metrics"].keys() == {"rouge_l", "perplexity"}
    before, after = (told["metrics"]["perplexity"]["value"] for told in (plain, tuned))
    assert 1.0 < after < before / 2


def test_a_chat_brings_its_system_prompt_along(
    toy_task: ToyTask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [
        {"role": role, "content": f"{text} {number}"}
        for number in range(2)
        for role, text in (("user", "Is the film good"), ("assistant", "Great film"))
    ]
    rows = [{"messages": [{**turns[0], "content": f"Hi {number}"}, *turns[1:]]} for number in range(20)]
    rows += [{"messages": rows[0]["messages"][:2], "system": "You are moved."}]
    data = {"train": write("talk.jsonl", rows), "validation": 0.2, "test": 0.0}
    task = toy_task(task={"name": "chat", "system": "You are funny."}, data=data, max_steps=2)
    project, examples = read_examples(tunesmith.load(task))
    chat = project.task.module
    told = {chat.conversation(record, project.task.config)[0] for record in (*examples.train, *examples.validation)}
    assert told == {Message("system", "You are funny."), Message("system", "You are moved.")}
    model = open_model(project.model, "float32")
    encoded, _ = encode_training(project, model, examples.train)
    end = model.template.end_ids[0]
    learned = [
        sum(weight > 0 for token, weight in zip(row.ids, row.weights, strict=True) if token == end) for row in encoded
    ]
    assert learned == [sum(turn.role == "assistant" for turn in row.messages) for row in examples.train]
    assert 2 in learned
    tunesmith.train(task)
    speaker = tunesmith.speaker("runs/toy")
    assert speaker.system == "You are funny."
    heard: list[Any] = []
    genuine = type(speaker.answerer).converse

    def converse(self: Any, messages: Any, *rest: Any, **keys: Any) -> str:
        heard.append(messages)
        return genuine(self, messages, *rest, **keys)

    monkeypatch.setattr(type(speaker.answerer), "converse", converse)
    speaker.reply([Message("user", "Hello")], max_new_tokens=2)
    speaker.reply([Message("system", "Be dull."), Message("user", "Hello")], max_new_tokens=2)
    assert [messages[0].content for messages in heard] == ["You are funny.", "Be dull."]
    words = iter(["Hello", ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(words))
    assert main(["chat", "--artifact", "runs/toy", "--max-new-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["user"] == "Hello"
    assert heard[-1][0] == Message("system", "You are funny.")

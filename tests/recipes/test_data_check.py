"""The recipe check: lengths as they are trained on, bad rows collected, and what is said when there is no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tunesmith.core.config import resolve
from tunesmith.core.errors import Mistake
from tunesmith.prompts.render import Template
from tunesmith.recipes._work import read_examples
from tunesmith.recipes.check import check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ToyTask = Callable[..., dict[str, Any]]


def says(report: dict[str, Any], part: str) -> dict[str, str]:
    (found,) = [finding for finding in report["findings"] if part in finding["says"]]
    return dict(found)


def test_lengths_are_those_of_the_rows_as_they_are_trained_on(
    toy_task: ToyTask, toy_tokenizer: PreTrainedTokenizerBase
) -> None:
    project, examples = read_examples(resolve(toy_task()))
    template = Template(toy_tokenizer)
    task = project.task
    lengths = [len(template.conversation(task.module.conversation(row, task.config)).ids) for row in examples.train]
    told = check(project)["lengths"]["train"]
    assert told["unit"] == "tokens"
    assert (told["shortest"], told["longest"], told["total"]) == (min(lengths), max(lengths), sum(lengths))
    over = check(resolve(toy_task(max_length=min(lengths) + 1)))["lengths"]["train"]["over"]
    assert over == sum(length > min(lengths) + 1 for length in lengths)


def test_good_data_are_reported_split_by_split_and_nothing_is_left_behind(toy_task: ToyTask, workplace: Path) -> None:
    project = resolve(toy_task())
    report = check(project)
    assert report["rows"] == read_examples(project)[1].counts()
    assert set(report["labels"]["train"]) == {"negative", "positive"}
    assert report["version"] == read_examples(project)[1].version
    assert report["bad_rows"] == []
    assert set(json.loads(json.dumps(report))) == set(report)
    assert list(workplace.iterdir()) == []


def test_bad_rows_are_collected_from_every_file(toy_task: ToyTask) -> None:
    good = "".join(f'{{"text": "row number {n}", "label": "{("positive", "negative")[n % 2]}"}}\n' for n in range(40))
    Path("train.jsonl").write_text(good + '{"text": "odd", "label": "neutral"}\n{"text": \n')
    Path("test.jsonl").write_text(good.replace("row", "line") + '{"text": "", "label": "positive"}\n')
    report = check(
        resolve(toy_task(data={"train": {"path": "train.jsonl", "bad_rows": "error"}, "test": "test.jsonl"}))
    )
    assert [line.split(": ")[0] for line in report["bad_rows"]] == ["train.jsonl:41", "train.jsonl:42", "test.jsonl:41"]
    assert says(report, "malformed")["severity"] == "problem"
    assert says(report, "not in the list")["says"].endswith("train.jsonl:41")
    assert report["problems"]["rows"] == 3


def test_labels_found_in_the_data_are_checked_too(toy_task: ToyTask) -> None:
    report = check(resolve(toy_task(task="classification")))
    assert says(report, "balanced enough")["severity"] == "fine"


def test_without_the_model_words_are_counted_and_it_is_said(
    toy_task: ToyTask, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check(resolve(toy_task(model="smollm2-135m-instruct")))
    assert report["lengths"]["train"]["unit"] == "words"
    assert report["lengths"]["train"]["longest"] == 6
    why = "smollm2-135m-instruct is not on this machine yet, so lengths are in words"
    assert report["notes"][-1].startswith(f"{why}; type `tunesmith models pull smollm2-135m-instruct`")
    assert why in capsys.readouterr().err
    assert says(report, "lengths are in words")["severity"] == "caution"


def test_a_model_without_a_tokenizer_is_no_reason_not_to_look(toy_task: ToyTask, toy_folder: Path) -> None:
    bare = Path("bare")
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((toy_folder / name).read_bytes())
    report = check(resolve(toy_task(model="./bare", max_length=1024)))
    assert report["lengths"]["train"]["unit"] == "words"
    assert report["notes"][-1].endswith("so lengths are in words")
    assert "has no tokenizer" in report["notes"][-1]
    assert report["lengths"]["train"]["max_length"] == 512


def test_more_than_the_model_can_see_is_told(toy_task: ToyTask) -> None:
    report = check(resolve(toy_task(max_length=1024)))
    assert says(report, "more than the model's context")["says"] == (
        "max_length (1,024) is more than the model's context of 512 tokens"
    )
    severities = [finding["severity"] for finding in report["findings"]]
    assert severities == sorted(severities, key=("problem", "caution", "fine").index)
    assert not [one for one in check(resolve(toy_task(max_length=512)))["findings"] if "context" in one["says"]]


def test_chats_and_entities_are_measured_too(toy_task: ToyTask) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    Path("chat.jsonl").write_text(
        "".join(json.dumps({"messages": [*turns, *turns][: 2 + n % 3]}) + "\n" for n in range(9))
    )
    report = check(resolve(toy_task(task="chat", data={"train": "chat.jsonl", "validation": 0, "test": 0})))
    assert report["rows"] == {"train": 9}
    assert report["labels"] == {}
    Path("a.conll").write_text("".join(f"Anna{n}\tB-person\nsings\tO\n\n" for n in range(40)))
    report = check(resolve(toy_task(task="ner", data={"train": "a.conll", "validation": 0.2, "test": 0.2})))
    assert sum(counted["person"] for counted in report["labels"].values()) == 40


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"data": {"train": "nothing.csv"}}, "nothing.csv: no such file"),
        ({"model": "smollm2-135m-instrukt"}, "did you mean 'smollm2-135m-instruct'"),
    ],
)
def test_what_cannot_be_looked_at_is_a_mistake(toy_task: ToyTask, keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Mistake, match=complaint):
        check(resolve(toy_task(**keys)))

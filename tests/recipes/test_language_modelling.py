"""Further pre-training on one's own texts, of decoders and of text-to-text models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import Mistake

ToyTask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 documents that say much the same, five of them longer than a row."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    sentence = "The {} was wonderful, funny and moving, and the {} was great. "
    words = ["film", "plot", "acting", "movie", "dialogue"]
    texts = [sentence.format(one, other) * (20 if one == other else 1) for one in words for other in words]
    path.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture
def task(toy_task: ToyTask, corpus: Path) -> ToyTask:
    def make(**keys: Any) -> dict[str, Any]:
        of_texts = {"task": "language_modelling", "data": {"train": str(corpus), "validation": 0.2, "test": 0.2}}
        return toy_task(**{**of_texts, "max_length": 64, "objective": "clm", **keys})

    return make


def test_a_decoder_learns_the_corpus(task: ToyTask) -> None:
    result = tunesmith.train(task(num_train_epochs=4))
    assert result["metric"] == "perplexity"
    assert result["value"] < 0.5 * result["before"]["perplexity"]["value"]
    assert result["metrics"]["bits_per_byte"]["value"] < result["before"]["bits_per_byte"]["value"]
    receipt = json.loads(Path("runs/toy/receipt.json").read_text())
    assert receipt["longest_row"] <= 64
    assert receipt["tokens"] - receipt["trained_tokens"] == receipt["rows"]
    again = tunesmith.evaluate(task(), artifact="runs/toy", split="validation")
    assert again["value"] == pytest.approx(result["value"])
    (told,) = tunesmith.speaker(artifact="runs/toy").answer(["The film was"])
    assert told["output"]


def test_texts_can_be_climbed(task: ToyTask) -> None:
    told = tunesmith.climb(task(rungs=["zero_shot", "few_shot", "lora"], budget={"minutes": 1}, max_steps=6))
    tried = {one["name"]: one for one in told["rungs"]}
    assert tried["few_shot"]["status"] == "skipped"
    assert tried["lora"]["value"] < tried["zero_shot"]["value"]


def test_what_is_learned_goes_on_into_another_task(task: ToyTask, toy_task: ToyTask) -> None:
    tunesmith.train(task(method="full", max_steps=3), evaluate=False)
    result = tunesmith.train(toy_task(model="./runs/toy/artifact", max_steps=3, output_dir="runs/next"))
    assert result["metric"] == "accuracy"


def test_a_text_to_text_model_fills_in_what_is_hidden(
    task: ToyTask, toy_model: Callable[..., Any], toy_tokenizer: Any, tmp_path: Path
) -> None:
    import copy

    tokenizer = copy.deepcopy(toy_tokenizer)
    tokenizer.chat_template = None
    tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(100)], special_tokens=True)
    toy_model("flan", vocab_size=len(tokenizer)).save_pretrained("toy-t5")
    tokenizer.save_pretrained("toy-t5")
    keys = {"model": "./toy-t5", "objective": "span_corruption", "num_train_epochs": 6}
    result = tunesmith.train(task(**keys))
    assert result["value"] < 0.7 * result["before"]["perplexity"]["value"]
    assert set(result["metrics"]) == {"perplexity"}
    with pytest.raises(Mistake, match=r"clm is for decoders; got .*toy-t5 \(encoder-decoder\)"):
        tunesmith.train(task(model="./toy-t5", output_dir="runs/other"))


def test_a_decoder_has_no_spans_to_fill(task: ToyTask) -> None:
    with pytest.raises(Mistake, match=r"span_corruption is for encoder-decoders; got .* \(decoder\)"):
        tunesmith.train(task(objective="span_corruption"))


def test_texts_are_checked(task: ToyTask) -> None:
    told = tunesmith.check(task())
    assert told["task"] == "language_modelling"


def test_init_knows_running_text(corpus: Path, tmp_path: Path) -> None:
    told = tunesmith.init(tmp_path / "project", str(corpus))
    assert (told["task"], told["rows"]) == ("language_modelling", 25)
    assert tunesmith.load(told["file"]).task.name == "language_modelling"

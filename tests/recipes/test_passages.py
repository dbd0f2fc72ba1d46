"""Further pre-training of encoders: what is hidden is told, and whether one piece of text goes on from another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.core.errors import Mistake

# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ToyTask = Callable[..., dict[str, Any]]
TEXT = "the film was [MASK] and the acting was great."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 documents of two sentences about one thing each."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    things, words = ("film", "plot", "acting", "movie", "dialogue", "jokes"), ("wonderful", "funny", "moving", "great")
    texts = [
        f"the {thing} was {word} and nothing of the {thing} was {other}. what of the {thing} was {word}? the {thing}."
        for thing, word, other in itertools.product(things, words, words[:2])
    ]
    path.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture
def task(toy_task: ToyTask, corpus: Path, toy_encoder: Callable[..., Any], toy_reading_tokenizer: Any) -> ToyTask:
    def make(head: str = "ForMaskedLM", method: str = "full", **keys: Any) -> dict[str, Any]:
        folder = Path(f"toy-{head}")
        if not folder.exists():
            toy_encoder("bert", head).save_pretrained(folder)
            toy_reading_tokenizer.save_pretrained(folder)
        data = {"train": str(corpus), "validation": 0.2, "test": 0.2}
        given = {"model": f"./{folder}", "task": "language_modelling", "data": data, "objective": "mlm"}
        return toy_task(**{**given, "method": method, "learning_rate": 3e-3, "max_length": 64, **keys})

    return make


def logits_of(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tokenizer(TEXT, return_tensors="pt")).logits[0]
    return found


def test_hidden_words_are_told_better_and_the_model_is_one_of_transformers(task: ToyTask) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    result = tunesmith.train(task(num_train_epochs=12))
    assert result["metric"] == "perplexity"
    assert result["value"] < 0.3 * result["before"]["perplexity"]["value"]
    receipt = json.loads(Path("runs/toy/receipt.json").read_text())
    assert 0.1 < receipt["trained_tokens"] / receipt["tokens"] < 0.16
    again = tunesmith.evaluate(task(), artifact="runs/toy", split="validation")
    assert again["value"] == pytest.approx(result["value"])
    theirs: Any = AutoModelForMaskedLM.from_pretrained("runs/toy/artifact")
    tokenizer = AutoTokenizer.from_pretrained("runs/toy/artifact")
    _, answerer, _ = tunesmith.recipes._artifacts.open_artifact(Path("runs/toy/artifact"), precision="float32")
    torch.testing.assert_close(logits_of(answerer.prepared.model, tokenizer), logits_of(theirs, tokenizer))
    best = logits_of(theirs, tokenizer).argmax(-1)
    place = tokenizer(TEXT)["input_ids"].index(tokenizer.mask_token_id)
    (told,) = tunesmith.speaker("runs/toy").answer([TEXT])
    assert told["output"].split()[3] == tokenizer.decode([int(best[place])])


def test_an_adapter_gives_the_same_logits_in_peft(task: ToyTask) -> None:
    import peft
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    result = tunesmith.train(task(method={"name": "lora", "r": 8, "alpha": 16}, learning_rate=1e-2, num_train_epochs=8))
    assert result["value"] < 0.7 * result["before"]["perplexity"]["value"]
    assert result["forgetting_drift"] > 0.0
    base = AutoModelForMaskedLM.from_pretrained("toy-ForMaskedLM")
    theirs = peft.PeftModel.from_pretrained(base, "runs/toy/artifact")
    tokenizer = AutoTokenizer.from_pretrained("toy-ForMaskedLM")
    ours = tunesmith.speaker("runs/toy", task=task()).answerer.prepared.model
    torch.testing.assert_close(logits_of(ours, tokenizer), logits_of(theirs, tokenizer))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_body_without_a_head_gets_a_new_one_and_is_told_so(
    task: ToyTask, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import peft
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    keys = {"num_train_epochs": 12, "learning_rate": 3e-3 if method == "full" else 1e-2}
    result = tunesmith.train(task("Model", method, **keys))
    assert "has no head for mlm: a new one, drawn from the seed, is trained" in capsys.readouterr().err
    assert result["value"] < 0.7 * result["before"]["perplexity"]["value"]
    again = tunesmith.evaluate(task("Model", method), artifact="runs/toy", split="validation")
    assert again["value"] == pytest.approx(result["value"])
    tokenizer = AutoTokenizer.from_pretrained("toy-Model")
    if method == "full":
        theirs: Any = AutoModelForMaskedLM.from_pretrained("runs/toy/artifact")
    else:
        theirs = peft.PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained("toy-Model"), "runs/toy/artifact")
    ours = tunesmith.speaker("runs/toy", task=task("Model")).answerer.prepared.model
    torch.testing.assert_close(logits_of(ours, tokenizer), logits_of(theirs, tokenizer))


def test_whether_a_piece_comes_next_is_learned_under_berts_own_head(task: ToyTask, tmp_path: Path) -> None:
    from transformers import AutoModelForNextSentencePrediction

    things = ("film", "plot", "acting", "movie", "dialogue", "jokes", "system", "capital")
    texts = [f"{thing} {number}. {thing} {number % 7}." for thing in things for number in range(40)]
    (tmp_path / "pairs.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    data = {"train": str(tmp_path / "pairs.txt"), "validation": 0.2, "test": 0.0}
    keys = {"num_train_epochs": 20, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    given = task("ForNextSentencePrediction", objective="nsp", data=data, **keys)
    result = tunesmith.train(given)
    assert result["metric"] == "accuracy"
    assert result["before"]["accuracy"]["value"] < 0.75
    assert result["value"] > 0.85
    again = tunesmith.evaluate(given, artifact="runs/toy", split="validation")
    assert again["value"] == result["value"]
    theirs: Any = AutoModelForNextSentencePrediction.from_pretrained("runs/toy/artifact").eval()
    ours = tunesmith.speaker("runs/toy", task=given).answerer
    ids = ours.reader.tokenizer("the film was great.", "nothing of the film.", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(ours.prepared.model(**ids).logits, theirs(**ids).logits)
    with pytest.raises(Mistake, match=r"fills in what is hidden and writes nothing else; expected \[MASK\]"):
        tunesmith.speaker("runs/toy").answer([TEXT])


def test_what_cannot_be_learned_of_running_text_is_told(task: ToyTask, toy_task: ToyTask, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="expected objective mlm or nsp; type --objective mlm"):
        tunesmith.train(task(objective="sft"))
    with pytest.raises(Mistake, match=r"mlm is for encoders; got .* \(decoder\)"):
        tunesmith.train(task(model=toy_task()["model"], output_dir="runs/other"))
    with pytest.raises(Mistake, match="mlm learns running text; got the task classification"):
        tunesmith.train(toy_task(model=task()["model"], objective="mlm", output_dir="runs/third"))
    with pytest.raises(Mistake, match="has no head for language_modelling yet"):
        tunesmith.evaluate(task("Model"))
    alone = tmp_path / "alone.txt"
    alone.write_text("the film was great. the plot was dull.")
    data = {"train": str(alone), "validation": 0.0, "test": 0.0}
    with pytest.raises(Mistake, match="only one document has two sentences"):
        tunesmith.train(task("ForNextSentencePrediction", objective="nsp", data=data, output_dir="runs/fourth"))


def test_masks_can_be_climbed(task: ToyTask) -> None:
    told = tunesmith.climb(task(budget={"minutes": 0.6}, max_steps=6))
    tried = {one["name"]: one for one in told["rungs"]}
    assert list(tried) == ["bitfit", "lora"]
    assert tried["lora"]["forgetting_drift"] > 0.0
    assert tried["lora"]["forgetting_kl"] is None

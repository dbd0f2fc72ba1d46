"""A model from nothing: made, trained, gone on with, and taken by every other command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.models.shapes import Shape, shapes
from tunesmith.recipes import _learn as training

ToyTask = Callable[..., dict[str, Any]]
KEYS = {"max_length": 64, "precision": "float32", "output_dir": "runs/mine", "data__validation": 0.2}


@pytest.fixture(autouse=True)
def toy_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Shape("toy", 32, 2, 4, 2, 64, 512, 300, 0, 1e-2)
    monkeypatch.setitem(shapes(), "toy", toy)


@pytest.fixture
def corpus() -> str:
    words = ("film", "plot", "acting", "movie", "dialogue", "story")
    texts = (f"The {one} was wonderful and the {other} was great." for one in words for other in words)
    Path("corpus.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return "corpus.txt"


def test_a_model_is_made_learns_and_is_taken_by_every_command(
    corpus: str, toy_task: ToyTask, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tunesmith.pretrain(corpus, shape="toy", num_train_epochs=10, **KEYS)
    assert result["value"] < 0.2 * result["before"]["perplexity"]["value"]
    assert result["metrics"]["bits_per_byte"]["value"] < 0.5 * result["before"]["bits_per_byte"]["value"]
    assert result["forgetting_kl"] is None
    assert Path("runs/mine/report.html").is_file()
    (told,) = tunesmith.speaker(artifact="runs/mine").answer(["The film was"])
    assert told["output"].startswith("wonderful")
    assert main(["generate", "--model", "./runs/mine/artifact", "--json", "The film was"]) == 0
    assert json.loads(capsys.readouterr().out)
    climbed = tunesmith.climb(
        toy_task(
            model="./runs/mine/artifact", rungs=["zero_shot", "lora"], max_steps=3, max_length=128, output_dir="runs/c"
        )
    )
    assert {one["status"] for one in climbed["rungs"]} == {"finished"}


def test_an_interrupted_one_goes_on_to_the_same_weights(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {**KEYS, "num_train_epochs": 3, "save_steps": 2}
    whole = tunesmith.pretrain(corpus, shape="toy", **{**keys, "output_dir": "runs/whole"})
    fit = training.fit

    def stopped(job: Any) -> Any:
        def stop(step: Any) -> None:
            if step.number == 3:
                raise KeyboardInterrupt

        return fit(job, stop)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            tunesmith.pretrain(corpus, shape="toy", **keys)
    again = tunesmith.pretrain(corpus, shape="toy", **keys)
    files = [Path("runs", name, "artifact", "model.safetensors").read_bytes() for name in ("whole", "mine")]
    assert files[0] == files[1]
    assert again["value"] == whole["value"]


def test_another_model_in_the_folder_is_left_alone(corpus: str) -> None:
    tunesmith.pretrain(corpus, shape="toy", max_steps=1, **KEYS)
    kept = Path("runs/mine/start/model.safetensors").read_bytes()
    with pytest.raises(Mistake, match="runs/mine: holds another model; choose another --output_dir"):
        tunesmith.pretrain(corpus, shape="toy", vocab_size=280, **KEYS)
    assert Path("runs/mine/start/model.safetensors").read_bytes() == kept

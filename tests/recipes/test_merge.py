from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message
from tunesmith.engine.quantized import Quantized
from tunesmith.evaluation.forgetting import replay_prompts
from tunesmith.methods._artifact import describe
from tunesmith.recipes import _artifacts
from tunesmith.recipes.merge import _logits

ToyTask = Callable[..., dict[str, Any]]
TEXTS = ["the film was wonderful 3", "the plot was dull 1"]


@pytest.fixture(scope="module", params=["nf4", "int8"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Path:
    """A LoRA trained on a quantized base."""
    workplace = tmp_path_factory.mktemp("merge")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        tunesmith.train(toy_task(quantization=request.param, num_train_epochs=3, learning_rate=2e-2))
    return workplace / "runs/toy"


def test_a_run_on_a_quantized_base_is_opened_as_it_was_trained(run: Path) -> None:
    kind = yaml.safe_load((run / "config.yaml").read_text())["quantization"]
    assert describe(run / "artifact").origin.quantization == kind
    model, _, _ = _artifacts.open_artifact(run / "artifact")
    kinds = {layer.kind for layer in model.loaded.model.modules() if isinstance(layer, Quantized)}
    assert kinds == {kind}
    spoken = tunesmith.speaker(run)
    assert [answer["output"] for answer in spoken.answer(TEXTS)] == ["positive", "negative"]


def test_on_a_base_that_is_not_quantized_it_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = yaml.safe_load((run / "config.yaml").read_text())
    kind, keys["quantization"] = keys["quantization"], None
    tunesmith.speaker(run, task=keys)
    told = " ".join(capsys.readouterr().err.split())
    assert f"made on a base stored in {kind}, laid here on one that is not quantized" in told


def test_merged_is_adapted_and_loads_anywhere(run: Path, tmp_path: Path) -> None:
    told = tunesmith.merge(run, precision="float32", output_dir=tmp_path / "mine")
    assert told["largest_logit_difference"] < 1e-4
    assert told["same_likeliest_token"] == 1.0
    assert told == json.loads((tmp_path / "mine/merge.json").read_text())
    adapted, _, _ = _artifacts.open_artifact(run / "artifact", precision="float32")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "mine", dtype=torch.float32)
    ids = adapted.template.prompt((Message("user", replay_prompts()[0]),))
    with torch.inference_mode():
        found = plain(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(found, _logits(adapted)[0], rtol=1e-4, atol=1e-4)


def test_the_command_tells_the_difference(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "mine")
    assert main(["merge", str(run), "--output-dir", place, "--precision", "bfloat16"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "logits differ by" in shown
    assert "bfloat16" in shown
    assert main(["merge", str(run), "--output-dir", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "lora"


def test_other_peoples_files_are_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(Mistake, match="holds other files already"):
        tunesmith.merge(run, output_dir=tmp_path)


def test_a_climb_on_a_quantized_base_goes_on_without_what_it_cannot_have(toy_task: ToyTask) -> None:
    keys = toy_task(quantization="int8", max_steps=3)
    told = tunesmith.climb(keys, rungs=["zero_shot", "last_layers", "lora"], minutes=10)
    outcomes = {one["name"]: one for one in told["rungs"]}
    assert "cannot train" in outcomes["last_layers"]["reason"]
    assert outcomes["lora"]["status"] == "finished"
    with pytest.raises(Mistake, match="full cannot train"):
        tunesmith.train({**keys, "method": "full", "output_dir": "runs/full"})


def test_what_has_no_weights_to_merge_is_refused(toy_task: ToyTask) -> None:
    tunesmith.train(toy_task(method={"name": "prompt_tuning"}, max_steps=1), evaluate=False)
    with pytest.raises(Mistake, match="prompt_tuning stands beside the base"):
        tunesmith.merge("runs/toy")

"""The shelf is told whole, and what is counted without memory is what training would train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.cli._main import main
from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.core.rooms import choice, names
from tunesmith.engine.prepare import prepare
from tunesmith.engine.survey import Look
from tunesmith.methods._attachment import trainable
from tunesmith.recipes.methods import ORDER, methods


@pytest.fixture(scope="module")
def told(toy_folder: Path) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in methods(str(toy_folder))}


def test_every_method_is_told_family_by_family(told: dict[str, dict[str, Any]]) -> None:
    assert set(told) == set(names("methods"))
    places = [ORDER.index(one["family"]) for one in told.values()]
    assert places == sorted(places)


@pytest.mark.parametrize("name", names("methods"))
def test_what_is_counted_is_what_would_train(
    name: str, told: dict[str, dict[str, Any]], toy_model: Callable[..., Any], toy_tokenizer: Any
) -> None:
    one, model, chosen = told[name], toy_model("llama"), choose("methods", name)
    if one["reason"]:
        with pytest.raises(Mistake):
            chosen.module.attach(model, chosen.config)
        return
    config = chosen.config
    if hasattr(chosen.module, "resolve"):
        config = chosen.module.resolve(config, toy_tokenizer, "Do what is asked.")
    if hasattr(chosen.module, "survey"):
        rows = [Encoded((5, 81, 2, 300), (0.0, 0.0, 1.0, 1.0))]
        config = chosen.module.survey(model, config, Look(prepare(model, "float32"), rows, 0))
    total = sum(parameter.numel() for parameter in model.parameters())
    torch.manual_seed(0)
    chosen.module.attach(model, config)
    assert (one["trained"], one["total"]) == (trainable(model).count, total)


def test_a_model_is_told_the_rates_that_suit_it(told: dict[str, dict[str, Any]], toy_encoder_folder: Path) -> None:
    encoder = {one["name"]: one["learning_rate"] for one in methods(str(toy_encoder_folder))}
    for name in names("methods"):
        assert told[name]["learning_rate"] == choice("methods", name).LEARNING_RATE
    assert encoder["full"] == choice("methods", "full").ENCODER_LEARNING_RATE


def test_the_command_counts_a_model_and_says_what_is_not_here(
    toy_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["methods", "--model", str(toy_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["share"] for one in found}["full"] == 1.0
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "not on this machine; type `tunesmith models pull smollm2-135m-instruct`" in shown
    assert main(["methods", "--model", "smolm2-135m-instruct"]) == 2
    assert "smollm2-135m-instruct" in capsys.readouterr().err

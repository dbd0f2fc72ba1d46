"""An artifact at several strengths: what is chosen, and that what is written is as measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.config import Forgetting
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded, Score
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.metrics._measure import measure
from tunesmith.recipes._strengths import FACTORS, Strength, choose_strength, verdict
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]
ROW = pack([Encoded((5, 81, 2, 300, 17), (0.0, 0.0, 0.0, 1.0, 1.0))])


def strength(factor: float, kl: float, wrong: Sequence[int] | None = (), rise: float = 0.0) -> Strength:
    """A strength that answers 100 rows, those at the places `wrong` wrongly."""
    if wrong is None:
        return Strength(factor, kl, rise)
    scores = [Score(float(place not in wrong)) for place in range(100)]
    answers: Any = SimpleNamespace(measured=measure("accuracy", scores), scores=scores)
    return Strength(factor, kl, rise, answers)


TRIED = [
    strength(1.0, 0.4, range(10)),
    strength(0.7, 0.2, range(8)),
    strength(0.5, 0.1, range(50, 62)),
    strength(0.2, 0.01, range(30)),
    strength(0.0, 0.0, range(60)),
]


def test_the_weakest_that_is_not_worse_beyond_noise() -> None:
    # 92 against 88 right, wrong on different rows: 12 rows speak for one and 8 for the other, which is noise.
    assert choose_strength(TRIED, Forgetting()).factor == 0.5


def test_inside_a_bound_the_best() -> None:
    assert choose_strength(TRIED, Forgetting(max_kl=0.2)).factor == 0.7
    assert choose_strength(TRIED, Forgetting(max_kl=0.15)).factor == 0.5
    assert (
        choose_strength([strength(1, 0.1, rise=0.2), strength(0.5, 0.1, rise=0.1)], Forgetting(max_drop=0.1)).factor
        == 0.5
    )
    even = [strength(1.0, 0.2), strength(0.8, 0.1), strength(0.0, 0.0)]
    assert choose_strength(even, Forgetting(max_kl=1.0)).factor == 0.8


def test_by_hand_nothing_need_be_measured() -> None:
    assert (
        choose_strength([strength(1.0, 0.4, None), strength(0.3, 0.1, None)], Forgetting(max_kl=0.01), 0.3).factor
        == 0.3
    )


def test_where_all_forget_too_much_it_says_so() -> None:
    with pytest.raises(
        Mistake, match=r"even at 0\.2 KL 0\.010 from the base is over max_kl 0\.005; .*--factor 0\.1 by"
    ):
        choose_strength(TRIED, Forgetting(max_kl=0.005))


def test_the_verdict() -> None:
    assert verdict(TRIED[2], TRIED, "lora") == (
        "Use lora at 0.5 of its strength: accuracy 0.880 (0.820 to 0.940, 100 validation rows) where all of it gets "
        "0.900 and the base alone 0.400, KL 0.100 nats a token from the base instead of 0.400."
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Path:
    """A folder in which `runs/lora` and `runs/full` have been trained."""
    workplace = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        for name, rate in (("lora", 1e-2), ("full", 1e-3)):
            method = {"name": name, "r": 4} if name == "lora" else name
            task = toy_task(method=method, learning_rate=rate, max_steps=16, output_dir=f"runs/{name}")
            tunesmith.train(task, evaluate=False)
    return workplace


def answers(artifact: str | Path) -> torch.Tensor:
    speaker = tunesmith.speaker(artifact, task="runs/lora/config.yaml")  # which says float32
    with torch.no_grad():
        return logits(speaker.answerer.prepared, ROW, ROW.index)


def test_a_run_is_scaled_and_the_choice_is_in_the_report(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    before = {path.name: path.read_bytes() for path in Path("runs/lora/artifact").iterdir()}
    free = tunesmith.scale("runs/lora", factor=1.0, output_dir="runs/whole")
    bound = free["factors"][0]["forgetting_kl"] / 3
    told = tunesmith.scale("runs/lora", max_kl=bound)
    kls = [one["forgetting_kl"] for one in told["factors"]]
    assert [one["factor"] for one in told["factors"]] == list(FACTORS)
    assert kls[0] == free["factors"][0]["forgetting_kl"]
    assert kls[-1] == 0.0
    assert kls == sorted(kls, reverse=True)
    inside = [one for one in told["factors"] if one["forgetting_kl"] <= bound and one["factor"]]
    [chosen] = [one for one in told["factors"] if one["chosen"]]
    assert chosen["value"] == max(one["value"] for one in inside)
    assert told["factor"] == chosen["factor"]
    assert json.loads(Path("runs/lora/scaled/scale.json").read_text()) == told
    whole, less = (load_file(Path(f"runs/{one}/artifact/adapter_model.safetensors")) for one in ("lora", "lora/scaled"))
    assert all(torch.equal(less[key], whole[key] * told["factor"]) for key in whole if "lora_B" in key)
    assert {path.name: path.read_bytes() for path in Path("runs/lora/artifact").iterdir()} == before
    page = Path("runs/lora/scaled/report.html").read_text(encoding="utf-8")
    assert told["verdict"] in page
    wide, narrow = (f"<svg{part.split('</svg>')[0]}</svg>" for part in page.split("<svg")[-2:])
    for picture in (wide, narrow):
        root = ElementTree.fromstring(picture)
        assert len(list(root.iter("circle"))) == len(FACTORS)
        assert any((node.text or "").startswith("at most") for node in root.iter("text"))
    run = open_store(runs / "tunesmith.db").run("lora")
    assert {artifact.kind for artifact in run.artifacts} >= {"lora", f"lora × {chosen['factor']:g}"}


@pytest.mark.parametrize("name", ["lora", "full"])
def test_what_is_written_is_as_much_of_the_change(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    told = tunesmith.scale(f"runs/{name}", factor=0.5, output_dir=f"runs/{name}-half", limit=8)
    assert [one["factor"] for one in told["factors"]] == [1.0, 0.5]
    assert told["factors"][0]["n"] == 8
    file = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}[name]
    whole, half = (load_file(Path(f"runs/{folder}/artifact/{file}")) for folder in (name, f"{name}-half"))
    if name == "lora":
        for key, weight in whole.items():
            assert torch.equal(half[key], weight / 2 if "lora_B" in key else weight)
        settings = [
            json.loads(Path(f"runs/{one}/artifact/adapter_config.json").read_text()) for one in (name, "lora-half")
        ]
        assert settings[0] == settings[1]
    else:
        base = load_file(Path(tunesmith.load("runs/full/config.yaml").model) / file)
        for key, weight in whole.items():
            torch.testing.assert_close(half[key], (weight + base[key]) / 2)
    assert not torch.equal(answers(f"runs/{name}-half"), answers(f"runs/{name}"))


# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_loads_it_scaled(runs: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(runs)
    tunesmith.scale("runs/lora", factor=0.3, output_dir="runs/less", limit=8)
    base = AutoModelForCausalLM.from_pretrained(toy_folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(base, "runs/less/artifact")(input_ids=ROW.tokens.unsqueeze(0)).logits[0]
    torch.testing.assert_close(answers("runs/less"), theirs[ROW.index], rtol=0, atol=1e-4)


def test_an_adapter_outside_a_run_is_scaled_by_hand(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(runs)
    adapter = tmp_path / "adapter"
    Path("runs/lora/artifact").rename(adapter)
    try:
        told = tunesmith.scale(adapter, factor=0.5)
        with pytest.raises(Mistake, match=r"lies in no run's folder; type --config task\.yaml, or --factor"):
            tunesmith.scale(adapter)
    finally:
        adapter.rename("runs/lora/artifact")
    assert told["artifact"] == str(tmp_path / "adapter-scaled" / "artifact")
    assert "value" not in told["factors"][0]
    assert told["verdict"].startswith("Use lora at 0.5 of its strength: KL ")


def test_the_command_shows_the_table(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    assert main(["scale", "runs/lora", "--factor", "0.6", "--limit", "8", "--output-dir", "runs/shown"]) == 0
    told = capsys.readouterr().out
    assert "→ 0.6" in told
    assert 'use it: tunesmith generate --artifact runs/shown "your text"' in told
    assert main(["scale", "runs/lora", "--factor", "0"]) == 2
    assert "--factor: got 0; expected more than 0" in capsys.readouterr().err


def test_a_prompt_has_no_strength(runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(runs)
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt/prompting.json").write_text("{}")
    with pytest.raises(Mistake, match="is a prompt, which has no strength"):
        tunesmith.scale(tmp_path / "prompt", factor=0.5)

"""What `forgetting:` of a task file does to a run, and that measuring the base after training changes no number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import tunesmith
from tunesmith.core.config import Forgetting, choose
from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.packages import cache_home
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.evaluation.forgetting import forgetting, remember, replay_prompts
from tunesmith.methods import _attachment
from tunesmith.recipes import _forgetting
from tunesmith.recipes._forgetting import REPLAY_TOKENS, outside, restrain
from tunesmith.recipes._work import Model, open_model

ToyTask = Callable[..., dict[str, Any]]
SHORT = {"max_steps": 6, "eval_steps": 2}


@pytest.fixture
def model(toy_folder: Path) -> Model:
    return open_model(str(toy_folder), "float32")


def moved(model: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def steps(folder: str = "runs/toy") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["lora", "full", "bitfit", "prompt_tuning"])
def test_the_base_measured_after_training_is_the_base_measured_before(
    name: str, toy_task: ToyTask, model: Model
) -> None:
    keys = {"init": "random", "num_virtual_tokens": 3} if name == "prompt_tuning" else {}
    method = choose("methods", name, **keys)
    restraint = restrain(tunesmith.load(toy_task()), model, 100)
    before = remember(model.prepared, model.template)
    torch.manual_seed(3)
    method.module.attach(model.loaded.model, method.config)
    moved(model.loaded.model)
    learned = {key: tensor.clone() for key, tensor in method.module.state(model.loaded.model).items()}
    random = torch.get_rng_state()
    prefix = method.module.prefix_tokens(model.loaded.model) if name == "prompt_tuning" else ()
    expected = forgetting(model.prepared, before, prefix=prefix)
    assert restraint.base is None
    assert restraint.lost(method, prefix) == expected
    assert expected.kl > 0
    after = method.module.state(model.loaded.model)
    assert all(torch.equal(after[key], learned[key]) for key in learned)
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_is_asked_of_the_base_unless_something_is_asked_for(
    toy_task: ToyTask, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_forgetting, "generate", pytest.fail)
    monkeypatch.setattr(_forgetting, "remember", pytest.fail)
    restraint = restrain(tunesmith.load(toy_task()), model, 100)
    assert (restraint.rows, restraint.penalties(()), restraint.gate(())) == ((), {}, None)


def test_replay_rows_are_the_base_s_own_answers_and_kept(
    toy_task: ToyTask, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(Path("home").absolute()))
    project = tunesmith.load(toy_task(forgetting={"replay": 0.2}, max_length=400))
    rows = restrain(project, model, 400).rows
    assert len(rows) == 100  # a fifth of 400 + 100
    assert rows[0] == rows[len(replay_prompts())]  # in turn, and around again
    batch = pack([rows[0]])
    with torch.no_grad():
        likeliest = logits(model.prepared, batch, batch.index).argmax(-1)
    assert torch.equal(likeliest, batch.labels)
    assert len(batch.labels) <= REPLAY_TOKENS + 1
    [kept] = (cache_home() / "answers").iterdir()
    monkeypatch.setattr(_forgetting, "generate", pytest.fail)
    assert restrain(project, model, 400).rows == rows
    assert len(json.loads(kept.read_text())) == len(replay_prompts())


def test_a_run_with_everything_asked_for_says_so(toy_task: ToyTask) -> None:
    asked = {"replay": 0.1, "kl": 0.5, "l2": 0.01, "ewc": 0.01, "max_kl": 50.0, "max_drop": 50.0}
    result = tunesmith.train(toy_task(forgetting=asked, max_length=400, **SHORT))
    trained = [line for line in steps() if "loss" in line]
    assert all({"kl", "l2", "ewc"} <= line.keys() for line in trained)
    assert trained[0]["l2"] == trained[0]["ewc"] == 0.0 < trained[-1]["l2"]
    validated = [line for line in steps() if "validation_loss" in line]
    assert [line["step"] for line in validated] == [2, 4, 6]
    assert all(line["forgetting_kl"] > 0 for line in validated)
    rows = result["data"]["train"]
    assert result["receipt"]["replayed_rows"] == round(rows / 9)
    assert result["receipt"]["rows"] == rows + round(rows / 9)
    best = next(line for line in validated if line["validation_loss"] == result["best_validation_loss"])
    assert result["forgetting_kl"] == pytest.approx(best["forgetting_kl"], rel=1e-6)
    assert result["forgetting_bits_per_byte"] == pytest.approx(best["forgetting_bits_per_byte"], rel=1e-5)


def test_what_holds_a_run_makes_it_forget_less(toy_task: ToyTask) -> None:
    def lost(name: str, **asked: float) -> float:
        result = tunesmith.train(toy_task(forgetting=asked, output_dir=f"runs/{name}", max_steps=12, eval_steps=12))
        return float(result["forgetting_kl"])

    free = lost("free")
    assert lost("kl", kl=20.0) < 0.6 * free
    assert lost("l2", l2=3.0) < 0.9 * free
    assert lost("ewc", ewc=3.0) < 0.9 * free


def test_a_run_that_passes_the_gate_steps_back(toy_task: ToyTask, capsys: pytest.CaptureFixture[str]) -> None:
    tunesmith.train(toy_task(forgetting={"max_kl": 1e6}, output_dir="runs/free", **SHORT), evaluate=False)
    seen = [line["forgetting_kl"] for line in steps("runs/free") if "forgetting_kl" in line]
    allowed = seen[0] + 0.7 * (seen[1] - seen[0])  # passed at the second validation
    result = tunesmith.train(toy_task(forgetting={"max_kl": allowed}, **SHORT))
    assert result["config"]["steps"] == 4
    assert result["reason"].startswith(f"step 4: KL {seen[1]:.3f} from the base is over max_kl")
    assert "back to the weights of step 2, and 0.5 of the way on from there" in result["reason"]
    assert seen[0] < result["forgetting_kl"] <= allowed
    assert result["reason"] in capsys.readouterr().err
    picture = Path("runs/toy/report.html").read_text(encoding="utf-8").split("What was forgotten on the way")[1]
    drawn = ElementTree.fromstring(f"<svg{picture.split('<svg')[1].split('</svg>')[0]}</svg>")
    dots = [node[0].text or "" for node in drawn.iter("g") if "rung" in node.get("class", "")]
    assert [dot.split(":")[0] for dot in dots] == ["step 2", "step 4"]
    assert any((node.text or "").startswith("at most ") for node in drawn.iter("text"))


def test_general_rows_may_be_the_person_s(toy_task: ToyTask, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forgetting, "generate", pytest.fail)
    rows = [{"instruction": f"Say the number {number}.", "output": f"It is {number}."} for number in range(3)]
    Path("general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    project = tunesmith.load(toy_task(forgetting={"replay": 0.5, "replay_data": "general.jsonl"}))
    found = restrain(project, model, 4).rows
    assert len(found) == 4
    assert found[0] == found[3]
    assert "It is 1." in model.template.tokenizer.decode(found[1].ids)
    with pytest.raises(Mistake, match=r"no general row fits into 8 tokens; raise max_length"):
        restrain(project.model_copy(update={"max_length": 8}), model, 4)


def test_their_file_is_looked_for_beside_the_task_file(toy_task: ToyTask) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/general.jsonl").write_text("{}")
    task = toy_task(forgetting={"replay": 0.5, "replay_data": "general.jsonl"})
    Path("elsewhere/task.yaml").write_text(json.dumps(task))
    assert tunesmith.load("elsewhere/task.yaml").forgetting.replay_data == "elsewhere/general.jsonl"


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"reply": 0.1}, "did you mean 'replay'"), ({"replay": 1.0}, "forgetting.replay"), ({"max_kl": 0}, "max_kl")],
)
def test_a_slip_is_told(asked: dict[str, Any], told: str, toy_task: ToyTask) -> None:
    with pytest.raises(Mistakes, match=told):
        tunesmith.load(toy_task(forgetting=asked))


def test_of_a_model_that_writes_nothing_only_the_start_is_held(toy_task: ToyTask, model: Model) -> None:
    reads: Any = SimpleNamespace(reader=object(), loaded=model.loaded, prepared=model.prepared)
    project = tunesmith.load(toy_task(forgetting={"l2": 0.1, "kl": 0.1, "max_kl": 0.1}))
    with pytest.raises(Mistake, match=r"forgetting\.kl, forgetting\.max_kl: .* is an encoder, which writes no answers"):
        restrain(project, reads, 100)
    held = restrain(tunesmith.load(toy_task(forgetting={"l2": 0.1})), reads, 100)
    assert (held.rows, held.leash, held.base) == ((), None, None)


def test_the_gate_says_which_bound_is_passed() -> None:
    asked = Forgetting(max_kl=0.1, max_drop=0.02)
    assert outside(asked, 0.1, 0.02) == ""
    assert outside(asked, 0.1234, 0.0) == "KL 0.123 from the base is over max_kl 0.1"
    assert outside(asked, 0.0, 0.03) == "0.030 more bits a byte of general text is over max_drop 0.02"
    assert outside(asked, None, None) == ""


def test_a_failed_measurement_leaves_the_adapter_on(
    toy_task: ToyTask, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = choose("methods", "lora")
    restraint = restrain(tunesmith.load(toy_task()), model, 100)
    method.module.attach(model.loaded.model, method.config)
    monkeypatch.setattr(_forgetting, "remember", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        restraint.lost(method, ())
    attached = _attachment.attached(model.loaded.model)
    assert attached is not None
    assert attached.method == "lora"

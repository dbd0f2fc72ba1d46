"""The low-rank family in the engine: as one product, as transformers computes it, and over a run that was killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine import products
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.forward import forward
from tunesmith.engine.loop import Step
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import prepare
from tunesmith.methods import adalora

METHODS: list[dict[str, Any]] = [
    {"name": "lora", "r": 4, "init": "pissa"},
    {"name": "lora", "r": 4, "rank_pattern": {"k_proj": 2, "up_proj": 6}, "layers_to_transform": [1]},
    {"name": "lora", "r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    {"name": "adalora", "init_r": 4},
    {"name": "dora", "r": 4},
    {"name": "vera", "r": 8},
]
ROWS = [Encoded(tuple(range(start, start + 12)), (0.0,) * 8 + (1.0,) * 4) for start in (5, 40, 90)]
methods = pytest.mark.parametrize("keys", METHODS, ids=lambda keys: "-".join(map(str, keys.values())))


def moved(model: Any, keys: dict[str, Any]) -> Any:
    """The model with the method attached, every trained weight somewhere else than at its start."""
    chosen = choose("methods", **keys)
    torch.manual_seed(0)
    chosen.module.attach(model, chosen.config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@methods
def test_packed_it_is_what_transformers_computes_alone(keys: dict[str, Any], toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model("llama").requires_grad_(False), "float32")
    moved(prepared.model, keys)
    plain = moved(toy_model("llama"), keys)
    expected = []
    for row in ROWS:
        ids = torch.tensor([row.ids])
        likely = plain(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
        expected.append(likely[-4:])
    together = forward(prepared, pack(ROWS)).logprobs
    torch.testing.assert_close(together, torch.cat(expected), rtol=0, atol=1e-5)


@methods
def test_one_product_is_the_layers_one_by_one(
    keys: dict[str, Any], toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(toy_model("llama").requires_grad_(False), "float32")
    moved(prepared.model, keys)
    found: list[dict[str, Tensor]] = []
    for _ in range(2):
        forward(prepared, pack(ROWS)).logprobs.sum().backward()  # type: ignore[no-untyped-call]  # torch
        found.append({name: p.grad.clone() for name, p in prepared.model.named_parameters() if p.requires_grad})
        prepared.model.zero_grad()
        monkeypatch.setattr(products, "_product", lambda layers: None)
    for name, grad in found[1].items():
        torch.testing.assert_close(found[0][name], grad, rtol=0, atol=1e-5 * float(grad.abs().max()), msg=name)


def test_lora_and_its_kin_are_one_product_and_others_are_not(toy_model: Callable[..., Any]) -> None:
    for keys, joined in zip(METHODS, [True, True, True, True, False, False], strict=True):
        prepared = prepare(toy_model("llama").requires_grad_(False), "float32")
        moved(prepared.model, keys)
        own = prepared.model.model.layers[1].self_attn
        assert (products._product([own.q_proj, own.k_proj, own.v_proj]) is not None) == joined, keys


def test_lora_plus_moves_b_further(make_job: Callable[..., Job]) -> None:
    """With the same first gradients, Adam's first step is the learning rate: B's is 8 times A's."""
    method = {"name": "lora", "r": 4, "loraplus_lr_ratio": 8}
    job = make_job(method=method, optimizer="adam", validation=[], steps=2, warmup_ratio=0.0)
    before = {name: p.detach().clone() for name, p in job.prepared.model.named_parameters() if p.requires_grad}
    steps: list[Step] = []

    def stop(step: Step) -> None:
        steps.append(step)
        if step.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job, stop)
    now = dict(job.prepared.model.named_parameters())
    away = {name: (now[name].detach() - start).abs() for name, start in before.items()}
    rate = steps[0].learning_rate
    assert max(float(d.max()) for name, d in away.items() if "lora_A" in name) == 0.0  # B is still zero
    farthest = max(float(d.max()) for name, d in away.items() if "lora_B" in name)
    assert farthest == pytest.approx(8 * rate, rel=1e-2)  # Adam's epsilon


@pytest.mark.parametrize("at", [4, 7, 10])
def test_adalora_goes_on_as_if_it_had_not_been_killed(at: int, make_job: Callable[..., Job], tmp_path: Path) -> None:
    """Before ranks are given up, while they are, and after: what is remembered of their importance comes back."""
    keys: dict[str, Any] = {
        "method": {"name": "adalora", "init_r": 4, "target_r": 2, "tinit": 3, "tfinal": 3},
        "save_steps": 3,
        "num_train_epochs": 3,
        "learning_rate": 0.01,
    }
    whole = make_job(tmp_path / "whole", **keys)
    fit(whole)

    def kill(step: Step) -> None:
        if step.number == at:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(make_job(tmp_path / "killed", **keys), kill)
    resumed = make_job(tmp_path / "killed", **keys)
    fit(resumed)
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("killed", "whole")]
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(resumed.trained, whole.trained, strict=True))
    ranks = [int(layer.lora_E.count_nonzero()) for _, layer in adalora._layers(whole.prepared.model)]
    assert sum(ranks) < 4 * len(ranks)


def test_a_method_keeps_its_own_penalty_small(make_job: Callable[..., Job], tmp_path: Path) -> None:
    last = []
    for weight in (0.0, 2.0):
        method = {"name": "adalora", "init_r": 4, "orth_reg_weight": weight}
        job = make_job(tmp_path / str(weight), method=method, validation=[], steps=20, learning_rate=0.02)
        fit(job)
        lines = (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()  # type: ignore[union-attr]
        told = [json.loads(line)["penalty"] for line in lines]
        assert told[0] == pytest.approx(weight * 2.0, rel=0.05)  # nearly no directions at the start: ‖−I‖ = √4
        factors = [layer.lora_A.detach() for _, layer in adalora._layers(job.prepared.model)]
        last.append(float(torch.stack([(factor @ factor.T - torch.eye(4)).norm() for factor in factors]).mean()))
    assert last[1] < last[0] / 2

"""DoRA, AdaLoRA and VeRA in peft and in ours: the same logits both ways, the same steps, at toy size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from tunesmith.core.config import Section, choose
from tunesmith.methods import _artifact, _attachment, adalora, dora, lora, vera

IDS = torch.tensor([[5, 81, 2, 300, 17, 44, 44, 9, 120], [7, 7, 250, 11, 99, 3, 60, 1, 8]])
ToyModel = Callable[..., Any]
pytestmark = [
    # peft 0.21 still asks transformers 5.23 for an attribute by its old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # peft corrects itself on GPT-2
    # Both are what save_projection: false asks for.
    pytest.mark.filterwarnings("ignore:Specified to not (save|load) vera_A and vera_B:UserWarning"),
]
STEPS = {"total_step": 10, "tinit": 0, "tfinal": 0}
# Method, kind of model, its settings in our names and in PEFT's.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    *(("dora", kind, {"r": 4, "alpha": 6}, {"r": 4, "lora_alpha": 6}) for kind in ("llama", "gpt2", "qwen2")),
    (
        "dora",
        "llama",
        {"r": 4, "alpha": 6, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"r": 4, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
    ),
    *(("adalora", kind, {"init_r": 4, "alpha": 6}, {"init_r": 4, "lora_alpha": 6}) for kind in ("llama", "gpt2")),
    *(("vera", kind, {"r": 8}, {"r": 8}) for kind in ("llama", "gpt2", "qwen2")),
    (
        "vera",
        "llama",
        {"r": 8, "projection_prng_key": 3, "save_projection": False},
        {"r": 8, "projection_prng_key": 3, "save_projection": False},
    ),
]
cases = pytest.mark.parametrize(("name", "kind", "ours", "theirs"), CASES)


def disturb(parameters: Any, scale: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in parameters:
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def trained(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def attached(model: Any, name: str, **keys: Any) -> Section:
    torch.manual_seed(0)
    chosen = choose("methods", name, **keys)
    chosen.module.attach(model, chosen.config)
    config: Section = chosen.config
    return config


def of_peft(name: str, **keys: Any) -> Any:
    kinds: dict[str, Any] = {"dora": peft.LoraConfig, "adalora": peft.AdaLoraConfig, "vera": peft.VeraConfig}
    more: dict[str, Any] = {"dora": {"use_dora": True}, "adalora": STEPS, "vera": {}}[name]
    return kinds[name](**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **more, **keys})


@cases
def test_ours_is_the_same_in_peft(
    name: str, kind: str, ours: dict[str, Any], theirs: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    model = toy_model(kind)
    config = attached(model, name, **ours)
    disturb(trained(model))
    _artifact.save(tmp_path / "ours", model, name, config, _artifact.Origin("toy-base"))
    loaded = peft.PeftModel.from_pretrained(toy_model(kind), tmp_path / "ours")
    same(logits(loaded), logits(model))
    same(logits(loaded.merge_and_unload()), logits(model))


@cases
def test_theirs_is_the_same_in_ours(
    name: str, kind: str, ours: dict[str, Any], theirs: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    wrapped = peft.get_peft_model(toy_model(kind), of_peft(name, **theirs)).eval()
    disturb(trained(wrapped))
    wrapped.save_pretrained(tmp_path / "theirs")
    model = toy_model(kind)
    base = logits(model)
    assert _artifact.load(tmp_path / "theirs", model)[0] == name
    same(logits(model), logits(wrapped))
    assert not torch.allclose(logits(model), base, atol=1e-2)


@cases
def test_peft_knows_every_key_we_write(
    name: str,
    kind: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    toy_model: ToyModel,
    tmp_path: Path,
) -> None:
    model = toy_model(kind)
    config = attached(model, name, **ours)
    _artifact.save(tmp_path / "ours", model, name, config, _artifact.Origin("toy-base"))
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    read = peft.PeftConfig.from_pretrained(str(tmp_path / "ours"))
    assert type(read) is type(of_peft(name))
    assert set(written) <= set(type(read).__dataclass_fields__)


def test_dora_learns_as_in_peft(toy_model: ToyModel) -> None:
    """The same gradients: the norm is a constant to both."""
    wrapped = peft.get_peft_model(toy_model("llama"), of_peft("dora", r=4, lora_alpha=8, target_modules=["q_proj"]))
    model = toy_model("llama")
    attached(model, "dora", r=4, alpha=8, target_modules=["q_proj"])
    state = {f"{key}": value for key, value in peft.get_peft_model_state_dict(wrapped).items()}
    disturb(state.values())
    peft.set_peft_model_state_dict(wrapped, state)
    dora.restore(model, state)
    for each in (model, wrapped):
        logits(each).square().mean().backward()
    theirs = {name.replace(".default", ""): p.grad for name, p in wrapped.named_parameters() if p.requires_grad}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            their_name = f"base_model.model.{name}".replace("magnitude", "lora_magnitude_vector.weight")
            their_name = their_name if "magnitude" in name else f"{their_name}.weight"
            torch.testing.assert_close(parameter.grad, theirs[their_name], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Adapter 'default'. 2 LoRA tensor.s. have invalid shape")  # a layer left with none
# peft 0.21 takes AdaLoRA's ranks for LoRA's when it looks for idle ones, in its own files too; it uses them.
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")
def test_adalora_gives_up_the_same_directions_as_peft(toy_model: ToyModel, tmp_path: Path) -> None:
    """Ten steps of plain descent on the same loss: penalty, importance, budget and mask are all theirs."""
    keys: dict[str, Any] = {"target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 1, "target_modules": ["q_proj", "v_proj"]}
    theirs = of_peft("adalora", init_r=4, lora_alpha=8, **{**keys, "total_step": 10})
    wrapped = peft.get_peft_model(toy_model("llama"), theirs)
    model = toy_model("llama")
    config = attached(model, "adalora", init_r=4, alpha=8, **keys)
    adalora.restore(model, peft.get_peft_model_state_dict(wrapped))

    for step in range(1, 11):
        loss = wrapped(input_ids=IDS, labels=IDS).loss
        loss.backward()
        own: Tensor = model(input_ids=IDS, labels=IDS).loss + adalora.penalty(model)
        own.backward()  # type: ignore[no-untyped-call]  # torch
        same(own, loss)
        for each in (model, wrapped):
            with torch.no_grad():
                for parameter in trained(each):
                    parameter -= 0.5 * parameter.grad
        adalora.on_step(model, step, 10)
        wrapped.base_model.update_and_allocate(step)
        for each in (model, wrapped):
            each.zero_grad()
    kept = {path: int(layer.lora_E.count_nonzero()) for path, layer in adalora._layers(model)}
    assert sum(kept.values()) == 2 * len(kept)
    assert len(set(kept.values())) > 1  # they were shared out, not cut alike
    same(logits(model), logits(wrapped))

    _artifact.save(tmp_path / "ours", model, "adalora", config, _artifact.Origin("toy-base"))
    wrapped.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        other = toy_model("llama")
        read = _artifact.load(tmp_path / folder, other)[1]
        assert isinstance(read, adalora.Config)
        assert read.rank_pattern == kept
        same(logits(other), logits(model))
        loaded = peft.PeftModel.from_pretrained(toy_model("llama"), tmp_path / folder)
        same(logits(loaded), logits(model))


def test_vera_draws_the_matrices_that_peft_draws(toy_model: ToyModel) -> None:
    wrapped = peft.get_peft_model(toy_model("llama"), of_peft("vera", r=8, projection_prng_key=5))
    model = toy_model("llama")
    attached(model, "vera", r=8, projection_prng_key=5)
    a, b = vera._shared(model)
    assert torch.equal(a, wrapped.base_model.vera_A["default"])
    assert torch.equal(b, wrapped.base_model.vera_B["default"])


def test_dora_and_lora_are_told_apart(toy_model: ToyModel, tmp_path: Path) -> None:
    for name in ("dora", "lora"):
        model = toy_model("llama")
        config = attached(model, name, r=2)
        _artifact.save(tmp_path / name, model, name, config, _artifact.Origin("toy-base"))
        (tmp_path / name / "tunesmith.json").unlink()
        other = toy_model("llama")
        assert _artifact.load(tmp_path / name, other) == (name, config.model_copy(update={"target_modules": _all()}))
        assert _attachment.expect(other, name)
    assert lora.PEFT_TYPE == dora.PEFT_TYPE == "LORA"


def _all() -> list[str]:
    return ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]

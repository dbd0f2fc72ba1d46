"""Any type of peft: checked keys, layers in and out without a trace, and the same logits as peft's own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft as library
import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.records import Encoded
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import prepare
from tunesmith.methods import _artifact, _attachment, _peft_types, peft

IDS = torch.tensor([[5, 81, 2, 300, 17, 44, 44, 9, 120]])
# What toys of width 32 need; everything else is at peft's defaults.
KEYS: dict[str, dict[str, Any]] = {
    "BEFT": {"target_modules": ["q_proj"]},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 50, "init_weights": True},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "MISS": {"r": 8},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "TRAINABLE_TOKENS": {"token_indices": [5, 81]},
    "VBLORA": {"vector_length": 8},
    "WAVEFT": {"n_frequency": 50},
}
# Their own code warns while it computes, which is an error here.
NOISY = {"ADAMSS", "FROD", "SHIRA"}
RANDOM = {"PVERA"}  # draws anew in every forward pass
every_type = pytest.mark.parametrize("kind", sorted({*_peft_types.known()} - NOISY))
ToyModel = Callable[..., Any]


def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def attach(model: Any, kind: str, **keys: Any) -> Any:
    config = choose("methods", "peft", type=kind, **KEYS.get(kind, {}) | keys).config
    torch.manual_seed(1)
    peft.attach(model, config)
    return config


def disturb(model: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@every_type
def test_a_type_goes_in_learns_and_goes_out_without_a_trace(kind: str, toy_model: ToyModel) -> None:
    model = toy_model("qwen2")  # some types need a bias
    before, tree = logits(model), [(path, id(module)) for path, module in model.named_modules()]
    values = {name: (p.data_ptr(), p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    attach(model, kind)
    disturb(model)
    moved = logits(model)
    assert (moved - before).abs().max() > 1e-3
    moved.sum().backward()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    peft.detach(model)
    assert [(path, id(module)) for path, module in model.named_modules()] == tree
    for name, parameter in model.named_parameters():
        assert (parameter.data_ptr(), parameter.requires_grad) == (values[name][0], values[name][2]), name
        assert torch.equal(parameter, values[name][1]), name
    assert torch.equal(logits(model), before)
    assert not hasattr(model, "peft_config")


# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # of LN_TUNING about norms
@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning")  # of BOFT, as the next
@pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning")
@pytest.mark.parametrize("kind", sorted({*_peft_types.known()} - NOISY - RANDOM))
def test_saved_it_is_the_same_in_peft_and_comes_back(kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    model, folder = toy_model("qwen2"), tmp_path / "artifact"
    config = attach(model, kind)
    disturb(model)
    _artifact.save(folder, model, "peft", config, _artifact.Origin("toy"))
    theirs = library.PeftModel.from_pretrained(toy_model("qwen2"), folder).eval()
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-5, atol=1e-5)
    (folder / "tunesmith.json").unlink()  # as peft itself would have left it
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == kind
    back = peft.from_peft(settings, peft.state(model))
    again = toy_model("qwen2")
    peft.attach(again, back)
    peft.restore(again, {name: tensor.clone() for name, tensor in peft.state(model).items()})
    assert torch.equal(logits(again), logits(model))


@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning")  # of BOFT, as the next
@pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning")
@pytest.mark.parametrize("kind", sorted({*_peft_types.known()} - NOISY - RANDOM))
def test_merged_it_is_the_same_without_a_layer_of_peft(kind: str, toy_model: ToyModel) -> None:
    model = toy_model("qwen2")
    before, tree = logits(model), [(path, type(module)) for path, module in model.named_modules()]
    attach(model, kind)
    disturb(model)
    adapted = logits(model)
    peft.merge(model)
    assert [(path, type(module)) for path, module in model.named_modules()] == tree
    assert (logits(model) - before).abs().max() > 1e-3
    # A product of weights is rounded once where it is merged, and once a token where it is not.
    torch.testing.assert_close(logits(model), adapted, rtol=0, atol=1e-4)


def test_the_engines_own_layers_read_a_trained_norm(toy_model: ToyModel) -> None:
    """They take its weight and epsilon instead of calling it, and peft's layer shows those of the base, or none."""
    plain, prepared = toy_model("llama"), prepare(toy_model("llama").requires_grad_(False), "float32")
    assert prepared.ours
    for model in (plain, prepared.model):
        attach(model, "LN_TUNING")
        disturb(model)
    ids = IDS[0].tolist()
    found = forward(prepared, pack([Encoded(tuple(ids), (0.0,) + (1.0,) * (len(ids) - 1))], share=False)).logprobs
    wanted = logits(plain)[0].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    found.sum().backward()  # type: ignore[no-untyped-call]  # of torch
    assert all(parameter.grad is not None for parameter in prepared.model.parameters() if parameter.requires_grad)


def test_somebodys_adapter_of_a_type_without_a_file_here_is_read(toy_model: ToyModel, tmp_path: Path) -> None:
    theirs = library.LoHaModel(
        model := toy_model("llama"), library.LoHaConfig(r=4, target_modules=["q_proj", "up_proj"]), "default"
    )
    disturb(model)
    shell = torch.nn.Module()
    shell.base_model, shell.peft_config = theirs, theirs.peft_config
    weights = library.get_peft_model_state_dict(shell, save_embedding_layers=False)
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "adapter_model.safetensors")
    theirs.peft_config["default"].save_pretrained(tmp_path)
    ours = toy_model("llama")
    name, config = _artifact.load(tmp_path, ours)
    assert (name, config.type, sorted(config.target_modules), config.model_extra) == (
        "peft",
        "LOHA",
        ["q_proj", "up_proj"],
        {"r": 4},
    )
    torch.testing.assert_close(logits(ours), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"type": "LOHA", "alhpa": 4}, "peft.alhpa: unknown key; did you mean 'alpha'?"),
        ({"type": "LOHA", "r": "many"}, "peft.r: got 'many'; expected a valid integer"),
        ({"type": "LOHAA"}, "peft.type: got 'LOHAA'; expected a type of the installed peft; did you mean 'LOHA'?"),
        (
            {"type": "PREFIX_TUNING"},
            "peft.type: got 'PREFIX_TUNING'; expected a type that changes layers; soft prompts",
        ),
        ({"type": "XLORA"}, "peft.type: got 'XLORA'; expected another type, since XLORA mixes adapters"),
        (
            {"type": "C3A", "target_module": ["q_proj"]},
            "peft.target_module: unknown key; did you mean 'target_modules'?",
        ),
    ],
)
def test_a_wrong_key_is_told_with_the_nearest_name(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(Mistakes) as caught:
        choose("methods", "peft", **keys)
    (line,) = caught.value.lines
    assert told in line


def test_keys_may_be_typed_in_small_letters_and_are_written_back(toy_model: ToyModel) -> None:
    chosen = choose("methods", "peft", type="lokr", r=4, decompose_both=True)
    assert chosen.as_dict() == {
        "name": "peft", "type": "lokr", "target_modules": "all-linear", "r": 4, "decompose_both": True
    }  # fmt: skip
    peft.attach(toy_model("llama"), chosen.config)


@pytest.mark.parametrize(
    ("kind", "type_", "keys", "told"),
    [
        ("gpt2", "LOHA", {}, "method: LOHA of peft does not suit this model: Target module of type .*Conv1D"),
        ("llama", "VBLORA", {"vector_length": 256}, "VBLORA of peft does not suit this model: .*divisible"),
        (
            "qwen2",
            "BOFT",
            {"bias": "all"},
            "BOFT of peft does not suit this model: it would train the base's own weights",
        ),
    ],
)
def test_a_model_that_does_not_suit_is_told_and_left_as_it_was(
    kind: str, type_: str, keys: dict[str, Any], told: str, toy_model: ToyModel
) -> None:
    model = toy_model(kind)
    before, tree = logits(model), [(path, id(module)) for path, module in model.named_modules()]
    with pytest.raises(Mistake, match=told):
        attach(model, type_, **keys)
    assert _attachment.attached(model) is None
    assert [(path, id(module)) for path, module in model.named_modules()] == tree
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(logits(model), before)


def test_types_that_need_a_float32_base_say_so(toy_model: ToyModel) -> None:
    model = prepare(toy_model("llama").requires_grad_(False), "bfloat16").model
    with pytest.raises(
        Mistake, match=r"SUPERTUNING of peft .* needs the base's weights in float32 \(--precision float32\)"
    ):
        attach(model, "SUPERTUNING")
    attach(model, "LOHA")


def test_a_type_that_cannot_be_merged_says_so(toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.loha import LoHaLayer

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("not with these\nand more")

    model = toy_model("llama")
    attach(model, "LOHA")
    monkeypatch.setattr(LoHaLayer, "merge", refuse)
    with pytest.raises(Mistake, match=r"peft: LOHA cannot be merged: not with these; keep it beside the base"):
        peft.merge(model)


def test_a_type_that_mixes_rows_is_refused(toy_model: ToyModel) -> None:
    with pytest.raises(Mistake, match="LILY answers a row differently for what stands beside it"):
        attach(toy_model("llama"), "LILY")

"""Our adapters in peft and peft's in ours: the same logits both ways, at toy size."""

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
from tunesmith.methods import _artifact, lora, prompt_tuning

IDS = torch.tensor([[5, 81, 2, 300, 17, 44, 44, 9, 120], [7, 7, 250, 11, 99, 3, 60, 1, 8]])
KINDS = ("llama", "gpt2", "qwen2", "gemma2", "t5", "flan")
ToyModel = Callable[..., Any]
# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# What LoRA is set to here, in our names and in PEFT's. GPT-2 names its layers otherwise and stores them transposed.
NAMED = {"llama": ["q_proj", "down_proj"], "gpt2": ["attn.c_proj", "c_fc"], "t5": ["EncDecAttention.q", "wo"]}
PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\.mlp\.up_proj": 3}}
EXPERTS = ["experts.gate_up_proj", "experts.down_proj", "mlp.gate.weight"]
LORA: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((kind, {"r": 4, "alpha": 6}, {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"}) for kind in KINDS),
    *(
        (kind, {"r": 2, "target_modules": targets}, {"r": 2, "lora_alpha": 32, "target_modules": targets})
        for kind, targets in NAMED.items()
    ),
    (
        "llama",
        {"r": 4, "alpha": 2.5, "use_rslora": True, "target_modules": r".*layers\.1\..*(q|v)_proj"},
        {"r": 4, "lora_alpha": 2.5, "use_rslora": True, "target_modules": r".*layers\.1\..*(q|v)_proj"},
    ),
    (
        "llama",
        {"r": 4, "alpha": 8, "target_modules": ["model.layers.0.self_attn.q_proj"], "init": "gaussian"},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj"],
            "layers_to_transform": [0],
            "init_lora_weights": "gaussian",
        },
    ),
    (
        "llama",
        {
            "r": 4,
            "alpha": 6,
            "use_rslora": True,
            **PATTERNS,
        },
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": "all-linear",
            "use_rslora": True,
            **PATTERNS,
        },
    ),
    (
        "mixtral",
        {"r": 2, "target_modules": ["q_proj"], "target_parameters": EXPERTS},
        {
            "r": 2,
            "lora_alpha": 32,
            "target_modules": ["q_proj"],
            "target_parameters": EXPERTS,
        },
    ),
]
lora_cases = pytest.mark.parametrize(("kind", "ours", "theirs"), LORA)


def disturb(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def logits(model: Any, prefix: tuple[int, ...] = ()) -> Tensor:
    """Ours takes the virtual tokens as ids; peft puts them in front by itself. Both give logits for them too."""
    ids = torch.cat([torch.tensor(prefix, dtype=torch.long).expand(len(IDS), -1), IDS], dim=1)
    answer = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    result: Tensor = model(input_ids=ids, **answer).logits
    return result


def task_type(model: Any) -> str:
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def save_ours(folder: Path, model: Any, name: str, config: Section) -> None:
    _artifact.save(folder, model, name, config, _artifact.Origin("toy-base"))


@lora_cases
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")  # FLAN's never were
def test_our_lora_is_the_same_in_peft(
    kind: str, ours: dict[str, Any], theirs: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    model, config = toy_model(kind), choose("methods", "lora", **ours).config
    lora.attach(model, config)
    disturb(p for p in model.parameters() if p.requires_grad)
    save_ours(tmp_path / "ours", model, "lora", config)
    loaded = peft.PeftModel.from_pretrained(toy_model(kind), tmp_path / "ours")
    assert sum("lora_" in name for name, _ in loaded.named_parameters()) == len(lora.state(model))
    same(logits(loaded), logits(model))
    same(logits(loaded.merge_and_unload()), logits(model))


@lora_cases
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft corrects itself on GPT-2
def test_peft_lora_is_the_same_in_ours(
    kind: str, ours: dict[str, Any], theirs: dict[str, Any], toy_model: ToyModel, tmp_path: Path
) -> None:
    base = toy_model(kind)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(task_type=task_type(base), **theirs))
    disturb(p for p in wrapped.parameters() if p.requires_grad)
    wrapped.save_pretrained(tmp_path / "theirs")
    model = toy_model(kind)
    before = logits(model)
    name, config = _artifact.load(tmp_path / "theirs", model)
    assert name == "lora"
    assert isinstance(config, lora.Config)
    assert (config.r, config.alpha, config.use_rslora) == (theirs["r"], theirs["lora_alpha"], "use_rslora" in theirs)
    same(logits(model), logits(wrapped))
    assert not torch.allclose(logits(model), before, atol=1e-2)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")  # its rows come along
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_embeddings_and_exclusions_are_the_same_both_ways(kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    def make() -> Any:
        return toy_model(kind, tie_word_embeddings=False)

    keys: dict[str, Any] = {"r": 4, "target_modules": ["embed_tokens", "v_proj"]}
    keys["exclude_modules"] = ["layers.0.self_attn.v_proj"]
    model, config = make(), choose("methods", "lora", alpha=8, **keys).config
    lora.attach(model, config)
    disturb(p for p in model.parameters() if p.requires_grad)
    assert len(lora.state(model)) == 4
    save_ours(tmp_path / "ours", model, "lora", config)
    loaded = peft.PeftModel.from_pretrained(make(), tmp_path / "ours")
    same(logits(loaded), logits(model))
    same(logits(loaded.merge_and_unload()), logits(model))

    wrapped = peft.get_peft_model(make(), peft.LoraConfig(task_type="CAUSAL_LM", lora_alpha=8, **keys))
    disturb(p for p in wrapped.parameters() if p.requires_grad)
    wrapped.save_pretrained(tmp_path / "theirs")
    other = make()
    _artifact.load(tmp_path / "theirs", other)
    same(logits(other), logits(wrapped))


def test_pissa_is_the_same_both_ways(toy_model: ToyModel, tmp_path: Path) -> None:
    """From the same start and after the same training; theirs is read with its start, ours is written without one."""
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    wrapped = peft.get_peft_model(toy_model("llama"), settings)
    config = choose("methods", "lora", r=4, alpha=8, target_modules=["q_proj"], init="pissa").config
    model = toy_model("llama")
    lora.attach(model, config)
    same(logits(model), logits(wrapped))
    disturb(p for p in wrapped.parameters() if p.requires_grad)
    disturb(p for p in model.parameters() if p.requires_grad)
    same(logits(model), logits(wrapped))

    wrapped.save_pretrained(tmp_path / "theirs")
    other = toy_model("llama")
    name, read = _artifact.load(tmp_path / "theirs", other)
    assert (name, getattr(read, "init", None)) == ("lora", "pissa")
    same(logits(other), logits(wrapped))

    save_ours(tmp_path / "ours", model, "lora", config)
    loaded = peft.PeftModel.from_pretrained(toy_model("llama"), tmp_path / "ours")
    same(logits(loaded), logits(wrapped))


@pytest.mark.parametrize("kind", KINDS)
def test_our_soft_prompt_is_the_same_in_peft(kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    model, config = toy_model(kind), prompt_tuning.Config(num_virtual_tokens=7, init="vocabulary")
    prompt_tuning.attach(model, config)
    disturb(p for p in model.parameters() if p.requires_grad)
    save_ours(tmp_path / "ours", model, "prompt_tuning", config)
    loaded = peft.PeftModel.from_pretrained(toy_model(kind), tmp_path / "ours")
    same(logits(loaded), logits(model, prompt_tuning.prefix_tokens(model)))


@pytest.mark.parametrize("kind", KINDS)
def test_peft_soft_prompt_is_the_same_in_ours(kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    base = toy_model(kind)
    # By itself peft would put virtual tokens before the decoder too.
    one = {"num_transformer_submodules": 1} if base.config.is_encoder_decoder else {}
    settings = peft.PromptTuningConfig(task_type=task_type(base), num_virtual_tokens=7, **one)
    wrapped = peft.get_peft_model(base, settings).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    model = toy_model(kind)
    assert _artifact.load(tmp_path / "theirs", model)[0] == "prompt_tuning"
    same(logits(model, prompt_tuning.prefix_tokens(model)), logits(wrapped))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_soft_prompt_starts_from_words_as_in_peft(
    kind: str, toy_model: ToyModel, toy_tokenizer: Any, tmp_path: Path
) -> None:
    """A text shorter than the prompt is repeated, on embeddings that scale (Gemma) and that do not."""
    toy_tokenizer.save_pretrained(tmp_path)
    text = "Is this movie review"
    settings = peft.PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=30,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=str(tmp_path),
    )
    theirs = peft.get_peft_model(toy_model(kind), settings).prompt_encoder["default"].embedding.weight
    model = toy_model(kind)
    config = prompt_tuning.resolve(prompt_tuning.Config(num_virtual_tokens=30, init_text=text), toy_tokenizer, "")
    prompt_tuning.attach(model, config)
    assert torch.equal(prompt_tuning.state(model)["prompt_embeddings"], theirs)


@pytest.mark.parametrize(("name", "kind"), [("lora", peft.LoraConfig), ("prompt_tuning", peft.PromptTuningConfig)])
def test_peft_knows_every_key_we_write(
    name: str, kind: type[Any], toy_model: ToyModel, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    keys = {"init": "vocabulary"} if name == "prompt_tuning" else {}
    chosen, model = choose("methods", name, **keys), toy_model("llama")
    chosen.module.attach(model, chosen.config)
    save_ours(tmp_path / "ours", model, name, chosen.config)
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    read = peft.PeftConfig.from_pretrained(str(tmp_path / "ours"))
    assert type(read) is kind
    assert set(written) <= set(kind.__dataclass_fields__)
    back = read.to_dict()
    assert {key: back[key] for key in written if key != "target_modules"} == {
        key: value for key, value in written.items() if key != "target_modules"
    }
    assert not recwarn.list

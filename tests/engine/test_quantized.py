"""Quantized bases: the numbers they mean, what multiplies with them, and every method on top of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.core.rooms import names
from tunesmith.engine import begin
from tunesmith.engine.forward import forward, logits
from tunesmith.engine.generation import generate
from tunesmith.engine.linear import Linear
from tunesmith.engine.memory import _saved_bytes
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.quantized import Quantized, dequantize
from tunesmith.engine.survey import Look
from tunesmith.methods import _attachment, _wrappers

KINDS = ("nf4", "fp4", "int8")
each_kind = pytest.mark.parametrize("kind", KINDS)
ROWS = [Encoded(tuple(range(5, 25)), (0.0,) * 15 + (1.0,) * 5), Encoded(tuple(range(40, 70)), (1.0,) * 30)]
PROMPTS = [tuple(range(5, 12)), tuple(range(30, 50))]
# These train the base's own weights, of which quantized layers have none.
IN_PLACE = ("full", "gradual_unfreezing", "last_layers")
# These only look at the base through numbers of their own; `features` trains nothing in the model.
BESIDE = [name for name in names("methods") if name not in (*IN_PLACE, "important", "features")]


def prepared(model: Any, kind: Any = "nf4", precision: Any = "float32") -> Prepared:
    model.requires_grad_(False)
    return prepare(model, precision, kind)


def plain_twin(made: Prepared) -> Prepared:
    """The same model with the numbers of its quantized layers in plain ones."""
    twin = copy.deepcopy(made.model)
    dequantize(twin, made.dtype)
    return prepare(twin, "bfloat16" if made.dtype == torch.bfloat16 else "float32")


def quantized(model: nn.Module) -> dict[str, Quantized]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, Quantized)}


def scores(made: Prepared) -> Tensor:
    batch = pack(ROWS)
    return logits(made, batch, torch.arange(len(batch.tokens)))


def by_hand(weight: Tensor, kind: str) -> Tensor:
    """QLoRA's eq. 4 without double quantization: the nearest value of the code, times the largest of its 64."""
    functional = pytest.importorskip("bitsandbytes.functional")
    code = functional.get_4bit_type(kind, device="cpu")
    blocks = weight.flatten().view(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    near = ((blocks / largest).unsqueeze(-1) - code).abs().argmin(-1)
    return (code[near] * largest).view(weight.shape)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("width", [48, 64, 96])
def test_the_numbers_are_those_of_the_paper(kind: Any, width: int) -> None:
    """Rows that are no multiple of 64 wide too, which bitsandbytes itself reads wrongly on a CPU."""
    torch.manual_seed(0)
    model: Any = nn.Module()
    model.layer = nn.Linear(width, 64, bias=False).requires_grad_(False)
    model.get_output_embeddings = lambda: None
    expected = by_hand(model.layer.weight, kind)
    from tunesmith.engine import linear, quantized

    linear.replace(model, torch.float32)
    quantized.quantize(model, kind, torch.device("cpu"))
    found = model.layer.dequantized()
    # The scales are rounded to 8 bits themselves, each by less than a hundredth of the largest.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
    assert model.layer.weight.numel() == expected.numel() // 2


def test_int8_is_within_half_a_step(toy_llama: Any) -> None:
    weight = toy_llama.model.layers[0].mlp.down_proj.weight.detach().clone()
    made = prepared(toy_llama, "int8")
    steps = weight.abs().amax(1, keepdim=True) / 127
    found = made.model.model.layers[0].mlp.down_proj.dequantized()
    assert ((found - weight).abs() <= 0.5001 * steps).all()


@each_kind
def test_only_the_frozen_linear_layers_are_quantized(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    twin = copy.deepcopy(model)
    made = prepared(model, kind)
    assert made.quantization == kind
    assert len(quantized(made.model)) == 2 * 7
    assert type(made.head) is Linear
    for name, parameter in made.model.named_parameters():
        if parameter.is_floating_point():
            assert torch.equal(parameter, twin.get_parameter(name)), name
    assert _attachment.trainable(made.model).total == _attachment.trainable(twin).total
    again = prepare(made.model, "float32", kind)
    assert torch.equal(scores(again), scores(made))


@each_kind
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "phi3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_multiplies_with_exactly_the_numbers_it_tells(
    precision: str, family: str, kind: str, toy_model: Callable[..., Any]
) -> None:
    made = prepared(toy_model(family), kind, precision)
    twin = plain_twin(made)
    assert quantized(made.model)
    assert not quantized(twin.model)
    torch.testing.assert_close(scores(made), scores(twin), rtol=0, atol=1e-6)


@each_kind
def test_it_generates_as_the_plain_model_of_its_numbers(kind: str, toy_llama: Any) -> None:
    made = prepared(toy_llama, kind)
    twin = plain_twin(made)
    one, other = (generate(each, PROMPTS, max_new_tokens=8, end_ids={2}) for each in (made, twin))
    assert [answer.ids for answer in one] == [answer.ids for answer in other]


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
@each_kind
def test_gradients_are_those_of_the_plain_model_and_reach_adapters_alone(
    kind: str, family: str, toy_model: Callable[..., Any]
) -> None:
    made = prepared(toy_model(family), kind)
    twin = plain_twin(made)
    lora = choose("methods", "lora", r=4)
    batch = pack(ROWS[:1] if family == "t5" else ROWS)
    for each in (made, twin):
        torch.manual_seed(1)
        lora.module.attach(each.model, lora.config)
        for name, parameter in each.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.05)
        torch.manual_seed(2)
    for each in (made, twin):
        forward(each, batch).logprobs.sum().backward()
    found = {name: parameter.grad for name, parameter in made.model.named_parameters() if parameter.grad is not None}
    assert set(found) == {name for name, parameter in made.model.named_parameters() if parameter.requires_grad}
    for name, gradient in found.items():
        assert gradient.count_nonzero() > 0, name
        torch.testing.assert_close(gradient, twin.model.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


def moved(model: nn.Module) -> None:
    """Stand in for training: move every trainable weight."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_no_weight_is_kept_whole_for_the_backward_pass(family: str, toy_model: Callable[..., Any]) -> None:
    """Neither by our own layers nor by transformers'."""
    kept = []
    for kind in (None, "nf4", "int8"):
        made = prepared(toy_model(family), kind)
        lora = choose("methods", "lora", r=4)
        lora.module.attach(made.model, lora.config)
        kept.append(_saved_bytes(made, pack(ROWS)))
    assert kept == [kept[0]] * 3


@pytest.mark.parametrize("name", BESIDE)
@each_kind
def test_a_method_beside_the_base_keeps_its_promises(
    kind: str, name: str, toy_model: Callable[..., Any], toy_tokenizer: Any
) -> None:
    """Fresh and detached it is the quantized base bit for bit, and gradients reach its own weights alone."""
    made = prepared(toy_model("llama"), kind)
    before, bits = scores(made), {path: layer.weight.clone() for path, layer in quantized(made.model).items()}
    chosen = choose("methods", name, **({"type": "randlora"} if name == "peft" else {}))
    method, config = chosen.module, chosen.config
    if hasattr(method, "resolve"):
        config = method.resolve(config, toy_tokenizer, "Is this movie review positive?")
    torch.manual_seed(1)
    method.attach(made.model, config)
    rows = [replace(ROWS[0], weights=(1.0,), labels=((0, 1),))] if getattr(method, "HEAD", False) else ROWS
    batch = pack(rows, prefix=method.prefix_tokens(made.model) if hasattr(method, "prefix_tokens") else ())
    fresh = forward(made, batch).logprobs
    moved(made.model)
    after = forward(made, batch).logprobs
    assert not torch.equal(fresh, after)
    after.sum().backward()
    for path, parameter in made.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, path
    method.detach(made.model)
    assert torch.equal(scores(made), before)
    assert all(torch.equal(layer.weight, bits[path]) for path, layer in quantized(made.model).items())


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_method_that_trains_the_base_refuses(name: str, toy_llama: Any) -> None:
    made = prepared(toy_llama)
    chosen = choose("methods", name)
    with pytest.raises(Mistake, match=r"cannot train .*weight, which is stored as .*; .*type --method.name lora"):
        chosen.module.attach(made.model, chosen.config)
    assert _attachment.attached(made.model) is None


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_method_of_peft_that_would_take_bytes_for_a_matrix_refuses(kind: str, toy_llama: Any) -> None:
    made = prepared(toy_llama, kind)
    hira = choose("methods", "peft", type="hira")  # multiplies its update with the base's weights
    with pytest.raises(Mistake, match=r"HIRA of peft .*: it reads the base's weights, which are quantized"):
        hira.module.attach(made.model, hira.config)
    randlora = choose("methods", "peft", type="randlora")
    randlora.module.attach(made.model, randlora.config)
    with pytest.raises(Mistake):
        randlora.module.merge(made.model)


def test_important_ranks_a_quantized_base_by_what_its_blocks_say(toy_llama: Any) -> None:
    made = prepared(toy_llama)
    important = choose("methods", "important", by="gradient", survey_rows=4)
    with pytest.raises(Mistake, match=r"gradient ranks weights that are not quantized, .*type --method.by random_for"):
        important.module.survey(made.model, important.config, Look(made, ROWS, 0))
    chosen = important.config.model_copy(update={"rows": {"model.layers.0.self_attn.q_proj": "0-3"}})
    before = scores(made)
    important.module.attach(made.model, chosen)
    moved(made.model)
    assert not torch.equal(scores(made), before)
    important.module.detach(made.model)
    assert torch.equal(scores(made), before)


@pytest.mark.parametrize("name", ["lora", "ia3", "dora", "adalora", "vera"])
def test_a_merge_into_bits_is_refused_and_into_their_numbers_is_exact(name: str, toy_llama: Any) -> None:
    made = prepared(toy_llama)
    chosen = choose("methods", name)
    chosen.module.attach(made.model, chosen.config)
    moved(made.model)
    adapted = scores(made)
    with pytest.raises(Mistake, match="is quantized and cannot take"):
        chosen.module.merge(made.model)
    dequantize(made.model, torch.float32)
    chosen.module.merge(made.model)
    torch.testing.assert_close(scores(made), adapted, rtol=1e-5, atol=2e-5)
    assert not quantized(made.model)


def test_what_cannot_be_quantized_is_told(toy_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Mistake, match="GPT2LMHeadModel has no linear layers that can be stored in int8"):
        prepared(toy_model("gpt2"), "int8")
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(Mistake, match=r"got fp4, which needs bitsandbytes.*type pip install .*--quantization int8"):
        prepared(toy_model("llama"), "fp4")
    assert quantized(prepared(toy_model("llama"), "int8").model)


def test_an_encoder_keeps_its_head_whole(toy_encoder: Callable[..., Any]) -> None:
    made = prepared(toy_encoder("bert", num_labels=3))
    assert quantized(made.model)
    assert all(path.startswith("bert.") for path in quantized(made.model))


@pytest.fixture
def from_files(toy_model: Callable[..., Any], tmp_path: Path) -> Callable[..., Prepared]:
    """A quantized model whose files hold it whole."""

    def make(kind: Any = "nf4") -> Prepared:
        model = toy_model("llama")
        model.save_pretrained(tmp_path)
        return replace(prepared(model, kind), folder=tmp_path)

    return make


@each_kind
def test_loftq_starts_as_what_was_rounded_away(kind: str, from_files: Callable[..., Prepared]) -> None:
    """Arithmetic of peft's own LoftQ: the best approximation of the residual, whatever shares it out to A and B."""
    from peft.utils.loftq_utils import _low_rank_decomposition

    made = from_files(kind)
    whole = {path: begin.whole_weight(made, path) for path in quantized(made.model)}
    stored = {path: layer.dequantized() for path, layer in quantized(made.model).items()}
    chosen = choose("methods", "lora", r=4, alpha=8, init="loftq")
    begin.attach(made, chosen)
    assert whole.keys() == {path for path, _ in _wrappers.wrappers(made.model)}
    for path, layer in _wrappers.wrappers(made.model):
        a, b = layer.factors()
        expected = _low_rank_decomposition(whole[path] - stored[path], reduced_rank=4)
        torch.testing.assert_close(layer.scaling * b @ a, expected["L"] @ expected["R"], rtol=0, atol=1e-5)
        assert torch.equal(layer.base.dequantized(), stored[path])


def test_loftq_is_nearer_to_the_whole_model(from_files: Callable[..., Prepared], toy_model: Callable[..., Any]) -> None:
    made, whole = from_files(), scores(prepare(toy_model("llama"), "float32"))
    rounded = (scores(made) - whole).abs().mean()
    begin.attach(made, choose("methods", "lora", r=14, init="loftq"))
    assert (scores(made) - whole).abs().mean() < rounded / 2


def test_loftq_says_what_it_lacks(from_files: Callable[..., Prepared], toy_model: Callable[..., Any]) -> None:
    made, chosen = from_files(), choose("methods", "lora", r=4, init="loftq")
    with pytest.raises(Mistake, match="made in memory, so no file holds its weights"):
        begin.attach(replace(made, folder=None), chosen)
    plain = prepare(toy_model("llama"), "float32")
    with pytest.raises(Mistake, match=r"layers\.0\.self_attn\.q_proj is not quantized; type quantization nf4"):
        begin.attach(plain, chosen)
    assert _attachment.attached(plain.model) is None
    with pytest.raises(Mistake, match=r"loftq starts linear layers alone; model\.embed_tokens is none"):
        begin.attach(from_files(), choose("methods", "lora", target_modules=["embed_tokens"], init="loftq"))

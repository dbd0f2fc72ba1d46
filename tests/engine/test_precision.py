"""The precision rule: frozen weights small, products at their precision, every sum that learning depends on in float32.

Products in bfloat16 run on any CPU; where there are no units for them, slowly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import prepare as prepare_module
from tunesmith.engine.forward import forward, logits
from tunesmith.engine.linear import Linear
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.engine.tiles import Context, spans

ROWS = [Encoded(tuple(range(5, 25)), (0.0,) * 15 + (1.0,) * 5), Encoded(tuple(range(40, 70)), (1.0,) * 30)]
KINDS = ("llama", "qwen2", "qwen3", "gemma2", "phi3", "mistral")


def _prepared(model: Any, precision: Any = "bfloat16", method: str = "", **settings: Any) -> Prepared:
    """As a run does it: a frozen model is made ready, then a method is attached."""
    model.requires_grad_(False)
    prepared = prepare(model, precision)
    if method:
        chosen = choose("methods", method, **settings)
        torch.manual_seed(0)
        chosen.module.attach(model, chosen.config)
    return prepared


def _logits(prepared: Prepared) -> Tensor:
    batch = pack(ROWS)
    return logits(prepared, batch, batch.index)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_matrices_lie_small_and_all_else_in_float32(kind: str, toy_model: Callable[..., Any]) -> None:
    model = _prepared(toy_model(kind), method="lora").model
    scaled = kind == "gemma2"  # its embedding multiplies by itself, so it stays as it was, and its tied head with it
    for name, parameter in model.named_parameters():
        matrix = name.endswith("weight") and parameter.dim() > 1 and not (scaled and "embed" in name)
        assert parameter.dtype == (torch.bfloat16 if matrix and "lora" not in name else torch.float32), name


@pytest.mark.parametrize("method", ["lora", "full", "bitfit", "prompt_tuning"])
def test_what_trains_is_float32_and_so_is_its_gradient(method: str, toy_llama: Any) -> None:
    settings = {"init": "random"} if method == "prompt_tuning" else {}
    prepared = _prepared(toy_llama, method=method, **settings)
    prefix = range(len(ROWS) and prepared.vocabulary, prepared.vocabulary + 20) if method == "prompt_tuning" else ()
    forward(prepared, pack(ROWS, prefix=prefix)).logprobs.sum().backward()
    trained = [parameter for parameter in toy_llama.parameters() if parameter.requires_grad]
    assert trained
    for parameter in trained:
        assert parameter.grad is not None
        assert {parameter.dtype, parameter.grad.dtype} == {torch.float32}


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
def test_the_residual_stream_is_float32(kind: str, toy_model: Callable[..., Any]) -> None:
    prepared = _prepared(toy_model(kind), method="lora")
    seen: set[torch.dtype] = set()

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for value in (*inputs, *(output if isinstance(output, tuple) else (output,))):
            if isinstance(value, Tensor) and value.is_floating_point():
                seen.add(value.dtype)

    for path, module in prepared.model.named_modules():
        if path.count(".") <= 2 or path.endswith("_proj"):
            module.register_forward_hook(look)
    assert _logits(prepared).dtype == torch.float32
    assert seen == {torch.float32}


def test_a_delta_far_below_the_outputs_resolution_reaches_it(toy_llama: Any) -> None:
    """bfloat16 has 8 bits: beside an output of 500, anything under 1 is rounded away there. In float32 0.01 is seen."""
    _prepared(toy_llama, method="lora", r=1, alpha=1.0, target_modules=["down_proj"])
    layer = toy_llama.model.layers[0].mlp.down_proj
    with torch.no_grad():
        layer.base.weight.fill_(8.0)
        layer.lora_A.fill_(1 / 64)
    x = torch.ones(1, 64)
    before = layer(x)
    assert before.tolist() == [[512.0] * 32]
    with torch.no_grad():
        layer.lora_B.fill_(0.01)
    assert (before + 0.01).bfloat16().float().tolist() == before.tolist()
    torch.testing.assert_close(layer(x) - before, torch.full((1, 32), 0.01), rtol=0, atol=1e-4)


def test_a_tiny_delta_goes_through_the_residual_stream(toy_llama: Any) -> None:
    """Through layers, residual and final norm: ten times the delta moves what the head sees ten times as far."""
    prepared = _prepared(toy_llama, method="lora", target_modules=["model.layers.1.mlp.down_proj"])
    seen: list[Tensor] = []
    toy_llama.model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    adapter = toy_llama.model.layers[1].mlp.down_proj
    direction = torch.randn(adapter.lora_B.shape, generator=torch.Generator().manual_seed(0))
    for size in (0.0, 1e-6, 1e-5):
        with torch.no_grad():
            adapter.lora_B.copy_(size * direction)
            _logits(prepared)
    near, far = seen[1] - seen[0], seen[2] - seen[0]
    assert 0 < float(far.abs().max()) < 1e-3 * float(seen[0].abs().max())  # below bfloat16's step of 2⁻⁸
    torch.testing.assert_close(10 * near, far, rtol=0, atol=0.05 * float(far.abs().max()))


def test_products_in_bfloat16_stay_near_those_in_float32(toy_llama: Any) -> None:
    exact = _logits(_prepared(copy.deepcopy(toy_llama), "float32"))
    rounded = _logits(_prepared(toy_llama))
    apart = (rounded - exact).abs()
    # Each of some ten products in a row rounds to 8 bits, and what lies between two of them; the toy's logits are nats.
    assert 0 < float(apart.max()) < 0.04 * float(exact.abs().max())


def test_tied_weights_stay_one(toy_llama: Any) -> None:
    _prepared(toy_llama)
    assert toy_llama.lm_head.weight is toy_llama.model.embed_tokens.weight
    assert toy_llama.lm_head.weight.dtype == torch.bfloat16
    assert "lm_head.weight" not in dict(toy_llama.named_parameters())


def test_untied_weights_stay_two(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    _prepared(model)
    assert model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_to_prepare_twice_is_to_prepare_once(kind: str, precision: Any, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    first = _logits(_prepared(model, precision))
    places = [(path, id(module)) for path, module in model.named_modules()]
    weights = [(name, parameter.data_ptr(), parameter.dtype) for name, parameter in model.named_parameters()]
    again = prepare(model, precision)
    assert [(path, id(module)) for path, module in model.named_modules()] == places
    assert [(name, p.data_ptr(), p.dtype) for name, p in model.named_parameters()] == weights
    assert torch.equal(_logits(again), first)


@pytest.mark.parametrize("method", ["lora", "full", "bitfit"])
def test_a_method_attached_before_is_left_in_peace(method: str, toy_llama: Any) -> None:
    """Whichever comes first, preparing or attaching, what trains is float32 and the model computes the same."""
    toy_llama.bfloat16().float()  # so that nothing is lost by lying small before the method takes its copy
    other = copy.deepcopy(toy_llama)
    after = _prepared(toy_llama, method=method)
    other.requires_grad_(False)
    chosen = choose("methods", method)
    torch.manual_seed(0)
    chosen.module.attach(other, chosen.config)
    before = prepare(other, "bfloat16")
    ours, theirs = dict(toy_llama.named_parameters()), dict(other.named_parameters())
    assert {n: (p.dtype, p.requires_grad) for n, p in ours.items()} == {
        n: (p.dtype, p.requires_grad) for n, p in theirs.items()
    }
    assert torch.equal(_logits(after), _logits(before))
    chosen.module.detach(other)
    assert {type(m) for m in other.modules() if isinstance(m, nn.Linear)} == {Linear}


def test_a_prepared_model_is_linear_layers_to_everybody(toy_llama: Any) -> None:
    names = [name for name, module in toy_llama.named_modules() if isinstance(module, nn.Linear)]
    _prepared(toy_llama)
    assert [name for name, module in toy_llama.named_modules() if isinstance(module, nn.Linear)] == names


@pytest.mark.parametrize("units", ["bfloat16", "float32"])
def test_auto_is_what_the_machine_has_units_for(units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "inspect", lambda torch: SimpleNamespace(precision=units))
    assert prepare_module.product_precision("auto") == getattr(torch, units)
    assert prepare_module.product_precision("float32") == torch.float32
    assert prepare_module.product_precision("bfloat16") == torch.bfloat16


def test_a_model_whose_attention_cannot_be_chosen_is_refused() -> None:
    class OldForCausalLM(nn.Module):
        _supports_attention_backend = False
        config = SimpleNamespace(is_encoder_decoder=False)

    with pytest.raises(Mistake, match="OldForCausalLM does not let its attention be chosen"):
        prepare(OldForCausalLM())


def test_a_prepared_model_says_how_it_is_called(toy_llama: Any) -> None:
    prepared = _prepared(toy_llama, "float32")
    with pytest.raises(RuntimeError, match=r"forward\(model, batch\)"):
        prepared.model(input_ids=torch.tensor([[5, 6]]))
    batch = pack(ROWS)
    context = Context(spans(batch.segments), len(batch.tokens), torch.float32, prepared.device)
    assert prepared.model(input_ids=batch.tokens[None], position_ids=batch.positions[None], packed=context).logits.any()

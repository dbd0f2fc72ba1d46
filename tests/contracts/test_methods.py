"""What every file of `methods/` promises, on several families of models and on one made ready as the engine does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.core.config import Section, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names
from tunesmith.methods import _artifact, _attachment, _head, _label_head, _state
from tunesmith.methods._rate import suited
from tunesmith.methods._strength import at_strength, has_strength
from tunesmith.recipes.methods import ORDER

IDS = torch.tensor([[5, 81, 2, 300, 17, 44, 44, 9, 120]])
EXACT_KINDS = ("llama", "gpt2", "qwen2", "gemma2", "t5", "flan", "bert")
KINDS = (*EXACT_KINDS, "prepared")
WITH_STRENGTH = [name for name in names("methods") if has_strength(choice("methods", name))]
# Methods with other settings than their defaults, where those are other code.
VARIANTS: dict[str, dict[str, Any]] = {
    "lora pissa": {"init": "pissa", "r": 4, "use_rslora": True},
    "lora embedding": {
        "target_modules": r"embed_tokens|wte|word_embeddings|q_proj|c_attn|query|SelfAttention\.q",
        "rank_pattern": {r"q_proj|c_attn|query|SelfAttention\.q": 2},
    },
}
each_method = pytest.mark.parametrize("name", [*names("methods"), *VARIANTS])
each_kind = pytest.mark.parametrize("kind", KINDS)


def keys_of(name: str) -> set[str]:
    return set(choice("methods", name).Config.model_fields)


class SmallLinear(nn.Linear):
    """As the engine's: stored and multiplied in bfloat16, with a float32 face."""

    def forward(self, input: Tensor) -> Tensor:
        output = functional.linear(input.bfloat16(), self.weight.bfloat16()).float()
        return output if self.bias is None else output + self.bias


class SmallEmbedding(nn.Embedding):
    """As the engine's: stored in bfloat16, rows come out in float32."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


def prepare(model: Any) -> Any:
    """Store matrices in bfloat16 behind layers that take and give float32; ties stay."""
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Embedding):
            module.weight.data = module.weight.data.bfloat16()
            module.__class__ = SmallLinear if type(module) is nn.Linear else SmallEmbedding
    return model


class Case(NamedTuple):
    """A method with a config that suits the toy model."""

    name: str
    method: ModuleType
    config: Section

    def attach(self, model: Any, seed: int = 1) -> None:
        types: Any = getattr(self.method, "MODEL_TYPES", None)
        if types is not None and model.config.model_type not in types:
            pytest.skip(f"{self.name} is not for {model.config.model_type}")
        torch.manual_seed(seed)
        self.method.attach(model, self.config)

    def logits(self, model: nn.Module) -> Tensor:
        """Of `IDS`, behind the virtual tokens where the method has some."""
        attached = _attachment.attached(model) is not None and hasattr(self.method, "prefix_tokens")
        prefix = self.method.prefix_tokens(model) if attached else ()
        if _attachment.attached(model) is not None and getattr(self.method, "HEAD", False):
            return labels(model)
        found = logits(model, torch.cat([torch.tensor([prefix], dtype=torch.long), IDS], dim=1))
        return found[:, -IDS.shape[1] :]

    def loss(self, model: nn.Module) -> Tensor:
        """Of the next tokens, or of one label of the row."""
        shares = self.logits(model).log_softmax(-1)
        if shares.dim() < 3:
            return shares[0, 1]
        return shares[0, :-1].gather(-1, IDS[0, 1:, None]).sum()


def labels(model: Any) -> Tensor:
    """What a head beside the model makes of the mean of `IDS`' states."""
    head = _label_head.head_of(model)
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    assert head is not None
    result: Tensor = head(body(input_ids=IDS).last_hidden_state.float().mean(1))
    return result


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    answer = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    result: Tensor = model(input_ids=ids, **answer).logits
    return result


def disturb(model: nn.Module, scale: float = 0.05) -> None:
    """Stand in for training: move every trainable weight."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)


def snapshot(model: nn.Module) -> tuple[list[Any], list[Any], list[Tensor]]:
    """Modules and parameters by identity, with storage, type and `requires_grad`; and the values."""
    parameters = list(model.named_parameters(remove_duplicate=False))
    places = [(name, id(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad) for name, p in parameters]
    return (
        [(path, id(module)) for path, module in model.named_modules()],
        places,
        [p.detach().clone() for _, p in parameters],
    )


@pytest.fixture
def make(toy_model: Callable[..., Any], toy_encoder: Callable[..., Any]) -> Callable[..., Any]:
    def build(kind: str, **keys: Any) -> Any:
        if kind == "bert":  # with a head that was made for the task, which every method trains beside its own
            model = toy_encoder(kind, vocab_size=400, num_labels=3, **keys)
            _head.mark(model, ("classifier",))
            return model
        return prepare(toy_model("llama", **keys)) if kind == "prepared" else toy_model(kind, **keys)

    return build


class Look:
    """A look at `IDS`, for methods that choose by the data; see `methods/_survey.py`."""

    seed = 0

    def __init__(self, model: Any) -> None:
        self.model = model

    def gradients(self, names: list[str], note: Callable[[str, Tensor], None], rows: int) -> None:
        parameters = [self.model.get_parameter(name) for name in names]
        likelihood = logits(self.model).log_softmax(-1)[..., 0].sum()
        for name, gradient in zip(names, torch.autograd.grad(likelihood, parameters), strict=True):
            note(name, gradient)


@pytest.fixture
def case(name: str, toy_tokenizer: Any, request: pytest.FixtureRequest, make: Callable[..., Any]) -> Case:
    keys = VARIANTS.get(name, {})
    name = name.partition(" ")[0]
    method, config = choice("methods", name), choose("methods", name, **keys).config
    if hasattr(method, "resolve"):
        config = method.resolve(config, toy_tokenizer, "Is this movie review positive?")
    if hasattr(method, "survey"):
        model = make(request.node.callspec.params.get("kind", "llama"))
        config = method.survey(model, config, Look(model))
    return Case(name, method, config)


@each_method
def test_a_method_declares_what_it_is(case: Case) -> None:
    assert {type(getattr(case.method, key)) for key in ("MERGEABLE", "MIXABLE", "WHOLE")} == {bool}
    assert case.method.LEARNING_RATE > 0
    assert suited(case.method, "encoder") >= suited(case.method, "decoder") == case.method.LEARNING_RATE
    assert case.method.FAMILY in ORDER
    assert 10 < len(case.method.GOOD_FOR) < 90
    assert case.method.PEFT_TYPE is None or (hasattr(case.method, "to_peft") and hasattr(case.method, "from_peft"))
    assert hasattr(case.method, "merge") == case.method.MERGEABLE
    assert all(field.description for field in type(case.config).model_fields.values())


@pytest.mark.parametrize("name", names("methods"))
def test_an_unknown_key_is_an_error(name: str) -> None:
    with pytest.raises(Mistake, match="unknown key"):
        choose("methods", name, rnak=4)


@each_kind
@each_method
def test_fresh_is_the_base_bit_for_bit(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model = make(kind)
    before = logits(model)
    case.attach(model)
    assert torch.equal(logits(model), before)


@each_kind
@each_method
def test_trainable_weights_are_float32_and_exactly_the_state(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model = make(kind)
    case.attach(model)
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = _state.state(case.method, model)
    assert found
    assert {parameter.dtype for parameter in found} == {torch.float32}
    assert {tensor.data_ptr() for tensor in state.values()} == {parameter.data_ptr() for parameter in found}
    assert not any(tensor.requires_grad for tensor in state.values())
    assert _attachment.trainable(model).count == sum(tensor.numel() for tensor in state.values())


@each_kind
@each_method
def test_gradients_reach_every_weight_and_no_other(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model = make(kind)
    case.attach(model)
    disturb(model)
    case.loss(model).backward()
    for path, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, path
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), path
            assert parameter.grad.count_nonzero() > 0, path


@each_kind
@each_method
def test_detached_is_the_base_bit_for_bit(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model = make(kind)
    next(model.parameters()).requires_grad_(False)
    before, (modules, places, values) = logits(model), snapshot(model)
    case.attach(model)
    disturb(model)
    case.logits(model).sum().backward()
    assert not torch.equal(case.logits(model), before)
    case.method.detach(model)
    after = snapshot(model)
    assert after[:2] == (modules, places)
    assert all(torch.equal(*pair) for pair in zip(after[2], values, strict=True))
    assert torch.equal(logits(model), before)


@each_method
def test_a_copy_of_an_attached_model_detaches_by_itself(case: Case, make: Callable[..., Any]) -> None:
    model = make("llama")
    before = logits(model)
    case.attach(model)
    disturb(model)
    twin = copy.deepcopy(model)
    case.method.detach(twin)
    assert torch.equal(logits(twin), before)
    assert not torch.equal(case.logits(model), before)


@pytest.mark.parametrize("kind", EXACT_KINDS)
@pytest.mark.parametrize("name", [name for name in names("methods") if choice("methods", name).MERGEABLE])
def test_merged_is_adapted(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model = make(kind)
    before, modules = logits(model), snapshot(model)[0]
    case.attach(model)
    disturb(model)
    adapted = case.logits(model)
    _state.merge(case.method, model)
    assert _attachment.attached(model) is None
    assert snapshot(model)[0] == modules
    assert (adapted - before).abs().max() > 1e-2
    torch.testing.assert_close(logits(model), adapted, rtol=1e-5, atol=2e-5)


def strengthened(case: Case, model: Any, factor: float) -> None:
    learned = {name: weight.clone() for name, weight in case.method.state(model).items()}
    case.method.restore(model, at_strength(model, case.method, learned, factor))


@each_kind
@each_method
def test_at_no_strength_it_is_the_base_and_at_full_strength_itself(
    case: Case, kind: str, make: Callable[..., Any]
) -> None:
    model = make(kind)
    before = logits(model)
    case.attach(model)
    disturb(model)
    learned = case.logits(model)
    # PiSSA's B holds part of the base while it trains; its artifact is a plain LoRA, which has a strength.
    if not has_strength(case.method) or getattr(case.config, "init", "") == "pissa":
        with pytest.raises(Mistake, match=f"scale: {case.name} is not a change added to the base's weights"):
            strengthened(case, model, 0.5)
        return
    strengthened(case, model, 1.0)
    assert torch.equal(case.logits(model), learned)
    if _head.paths(model):
        pytest.skip("a head that was made for the task has no base to go back to")
    strengthened(case, model, 0.0)
    torch.testing.assert_close(case.logits(model), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in WITH_STRENGTH if choice("methods", name).MERGEABLE])
def test_at_half_strength_every_weight_has_moved_half_as_far(case: Case, make: Callable[..., Any]) -> None:
    moved = []
    for factor in (1.0, 0.5):
        model = make("llama")
        base = {key: weight.detach().clone() for key, weight in model.named_parameters()}
        case.attach(model)
        disturb(model)
        strengthened(case, model, factor)
        _state.merge(case.method, model)
        moved.append({key: weight.detach() - base[key] for key, weight in model.named_parameters()})
    assert any(weight.abs().max() > 1e-3 for weight in moved[0].values())
    for key, whole in moved[0].items():
        torch.testing.assert_close(moved[1][key], whole / 2, rtol=1e-4, atol=1e-6)


@each_kind
@each_method
def test_a_state_restored_is_the_same_model(case: Case, kind: str, make: Callable[..., Any]) -> None:
    model, other = make(kind), make(kind)
    case.attach(model)
    disturb(model)
    case.attach(other, seed=2)
    learned = {key: tensor.clone() for key, tensor in _state.state(case.method, model).items()}
    _state.restore(case.method, other, learned)
    assert torch.equal(case.logits(other), case.logits(model))


@each_method
@pytest.mark.parametrize("wrong", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    case: Case, wrong: str, make: Callable[..., Any]
) -> None:
    model = make("llama")
    case.attach(model)
    before = {key: tensor.clone() for key, tensor in _state.state(case.method, model).items()}
    given = {key: tensor + 1 for key, tensor in before.items()}
    last = list(given)[-1]
    if wrong == "shape":
        given[last] = torch.zeros(3, 3, 3)
    else:
        moved = given.pop(last)
        given |= {} if wrong == "missing" else {f"{last}.inner": moved}
    with pytest.raises(Mistake, match={"missing": "lack", "unknown": "fits nowhere", "shape": "has shape"}[wrong]):
        _state.restore(case.method, model, given)
    assert all(torch.equal(tensor, before[key]) for key, tensor in _state.state(case.method, model).items())


@each_kind
@each_method
def test_saved_and_loaded_is_as_trained_and_not_the_base(
    case: Case, kind: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    model, other = make(kind), make(kind)
    before = logits(other)
    case.attach(model)
    disturb(model)
    _artifact.save(tmp_path / "artifact", model, case.name, case.config, _artifact.Origin("toy", "abc"))
    written = case.method.written(model, case.config)[0] if hasattr(case.method, "written") else case.config
    assert _artifact.load(tmp_path / "artifact", other, "abc") == (case.name, written)
    assert torch.equal(case.logits(other), case.logits(model))
    assert not torch.equal(case.logits(other), before)


@each_method
def test_loading_moves_no_random_numbers(case: Case, make: Callable[..., Any], tmp_path: Path) -> None:
    model, other = make("llama"), make("llama")
    case.attach(model)
    _artifact.save(tmp_path / "artifact", model, case.name, case.config, _artifact.Origin("toy"))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _artifact.load(tmp_path / "artifact", other)
    assert torch.equal(torch.rand(4), expected)


@each_method
def test_a_nan_is_never_written(case: Case, make: Callable[..., Any], tmp_path: Path) -> None:
    model, folder = make("llama"), tmp_path / "artifact"
    case.attach(model)
    _artifact.save(folder, model, case.name, case.config, _artifact.Origin("toy"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    next(iter(_state.state(case.method, model).values())).view(-1)[3] = float("nan")
    with pytest.raises(Mistake, match=r"not saved: \d of \d+ numbers in \S+ are NaN"):
        _artifact.save(folder, model, case.name, case.config, _artifact.Origin("toy"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@each_method
def test_the_same_seed_is_the_same_start(case: Case, make: Callable[..., Any]) -> None:
    states = []
    for _ in range(2):
        model = make("llama")
        case.attach(model, seed=5)
        states.append(_state.state(case.method, model))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@each_method
def test_methods_do_not_stack(case: Case, make: Callable[..., Any]) -> None:
    model = make("llama")
    case.attach(model)
    adapted, tree = case.logits(model), snapshot(model)[:2]
    with pytest.raises(RuntimeError, match=f"{case.name} is attached"):
        case.attach(model)
    assert snapshot(model)[:2] == tree
    assert torch.equal(case.logits(model), adapted)


@each_method
def test_detaching_what_is_not_attached_is_a_bug(case: Case, make: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match=f"expected {case.name} to be attached"):
        case.method.detach(make("llama"))


@pytest.mark.parametrize("name", [name for name in names("methods") if hasattr(choice("methods", name), "MODEL_TYPES")])
def test_a_model_of_another_type_is_refused_and_left_as_it_was(case: Case, make: Callable[..., Any]) -> None:
    model = make("llama")
    model.config.model_type = "other"
    tree = snapshot(model)[:2]
    with pytest.raises(Mistake, match=r"type other.* expected one of .*llama"):
        case.method.attach(model, case.config)
    assert snapshot(model)[:2] == tree


@pytest.mark.parametrize("name", [name for name in names("methods") if "target_modules" in keys_of(name)])
def test_a_misspelt_target_is_an_error(case: Case, make: Callable[..., Any]) -> None:
    model = make("llama")
    tree = snapshot(model)[:2]
    with pytest.raises(Mistake, match="did you mean 'q_proj'"):
        case.method.attach(model, choose("methods", case.name, target_modules=["v_proj", "q_prj"]).config)
    assert snapshot(model)[:2] == tree

"""Low-rank updates beside the frozen layers: small, mergeable, the usual first choice.

LoRA (arXiv 2106.09685, eq. 3): ``h = W x + (alpha / r) B A x`` with `A [r, in]` random and `B [out, r]` zero at the
start, so a fresh adapter changes nothing. With `use_rslora` the factor is ``alpha / sqrt(r)`` (arXiv 2312.03732), which
keeps large ranks learning at the same pace.

``init: pissa`` (arXiv 2404.02948) starts A and B as the strongest directions of W, which learns faster. There W is
split into them and a rest; here it stays whole and the start is subtracted, ``W x + s (B A − B₀ A₀) x``, which has the
same value and gradients. Written to disk it is a plain LoRA of twice the rank.

``init: loftq`` (arXiv 2310.08659) is for a quantized base: A and B start as the best approximation of what was rounded
away, ``W − Q(W)``, its algorithm 1 with one step. Further steps would change Q; here the base stays what it is.

Embeddings are targets when named, and the stacked experts of a mixture are through `target_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _low_rank, _peft_settings, _targets, _wrappers
from tunesmith.methods._beginning import Beginning
from tunesmith.methods._low_rank_places import LoraEmbedding, LoraExperts

FAMILY = "reparameterized"
GOOD_FOR = "the first choice for most work: near full tuning, small, mergeable"
LEARNING_RATE = 2e-4
MERGEABLE = True
MIXABLE = True
PEFT_TYPE: str | None = "LORA"
WHOLE = False

_NAME = "lora"


class Config(_low_rank.Ranks):
    """The keys of ``method: {name: lora}``."""

    init: Literal["kaiming", "gaussian", "pissa", "loftq"] = Field(
        "kaiming",
        description="how A starts, B at zero; or both as the strongest directions of the layer (pissa), "
        "or of what quantization took from it (loftq)",
    )
    target_parameters: list[str] = Field(
        default_factory=list, description="stacks of matrices beside the layers, e.g. [experts.gate_up_proj]"
    )


class LoraLinear(_low_rank.LowRankLinear):
    """A linear layer with `lora_A [r, in]` and `lora_B [out, r]` beside it; `path` is where it lies in the model.

    Raises Mistake where PiSSA cannot start: on a quantized layer, or one with fewer directions than the rank.
    """

    start_A: Tensor | None
    start_B: Tensor | None

    def __init__(self, base: nn.Module, config: Config, path: str = "") -> None:
        super().__init__(base)
        width_in, width_out = _wrappers.widths(base)
        rank, device = config.rank(path), self.weight.device
        self.scaling, self.dropout = config.scaling(path), config.dropout
        if config.init == "pissa":
            a, b = _strongest(_wrappers.matrix(base), rank, self.scaling, path)
        else:
            a, b = _low_rank.start(config.init, rank, width_in), torch.zeros(width_out, rank)
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(b.to(device))
        subtracted = config.init == "pissa"
        self.register_buffer("start_A", self.lora_A.detach().clone() if subtracted else None, persistent=False)
        self.register_buffer("start_B", self.lora_B.detach().clone() if subtracted else None, persistent=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B; with a start to subtract ``B A − B₀ A₀ = (B − B₀) A + B₀ (A − A₀)``, exactly zero when fresh."""
        if self.start_A is None or self.start_B is None:
            return self.lora_A, self.lora_B
        moved_a, moved_b = self.lora_A - self.start_A, self.lora_B - self.start_B
        return torch.cat([self.lora_A, moved_a]), torch.cat([moved_b, self.start_B], dim=1)

    def learned(self) -> dict[str, Tensor]:
        """A and B."""
        return {"lora_A.weight": self.lora_A, "lora_B.weight": self.lora_B}


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put an adapter around every layer that the config names.

    Raises Mistake when a target matches nothing, or is one that the config's `init` or `dropout` cannot be had for.
    """
    _attachment.refuse_stacking(model, _NAME)
    stacks = _targets.find_parameters(model, config.target_parameters)
    only_stacks = stacks and config.target_modules == []
    found = {} if only_stacks else _targets.select(model, config, _targets.LINEAR_OR_EMBEDDING)
    parameters = [f"{path}.{name}" for path, names in stacks.items() for name in names]
    config.refuse_idle_patterns([*found, *parameters])
    _refuse_impossible(config, found, stacks)
    wrapped: dict[str, _wrappers.Wrapper] = {}
    for path, base in found.items():
        wrapped[path] = LoraEmbedding(base, config, path) if _is_embedding(base) else LoraLinear(base, config, path)
    for path, names in stacks.items():
        wrapped[path] = LoraExperts(model.get_submodule(path), names, config, path)
    _wrappers.lay_on(model, _NAME, config, wrapped)


@torch.no_grad()
def begin(model: nn.Module, config: Config, given: Beginning) -> None:
    """With ``init: loftq``, start every adapter as what its layer lost when it was quantized; else as it is.

    Raises Mistake where the model's files do not tell, and for a layer with fewer directions than the rank.
    """
    if config.init == "loftq":
        for path, layer in _wrappers.wrappers(model):
            assert isinstance(layer, LoraLinear)
            lost = given.whole(path) - _wrappers.matrix(layer.base)
            for own, start in zip(
                layer.factors(), _strongest(lost, config.rank(path), layer.scaling, path), strict=True
            ):
                own.copy_(start)


def detach(model: nn.Module) -> None:
    """Take the adapter away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Add every update to its layer's own weight, in float32, and store it in the weight's own type.

    Raises Mistake for a quantized layer, and for a weight that two layers share.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under PEFT's names: ``base_model.model.<path>.lora_A.weight`` and ``lora_B``."""
    return _wrappers.state(model, _NAME)


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly.

    PEFT writes the rows of an embedding along with its adapter; they are passed over where they are the model's own.
    """
    own = {f"{_wrappers.PREFIX}{path}.base_layer.weight": layer.base for path, layer in _wrappers.wrappers(model)}
    given = {name: tensor for name, tensor in weights.items() if not _is_the_base(tensor, own.get(name))}
    _attachment.copy_into(state(model), given, _NAME)


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """What the optimizer gets: with `loraplus_lr_ratio` B learns faster than A (LoRA+, arXiv 2402.12354)."""
    return _low_rank.param_groups(model, _NAME)


def written(model: nn.Module, config: Config) -> tuple[Config, dict[str, Tensor]]:
    """What goes to disk: PiSSA as a plain LoRA of twice the rank, ``[A; A − A₀]`` and ``[B − B₀, B₀]``."""
    if config.init != "pissa":
        return config, state(model)
    more = math.sqrt(2.0) if config.use_rslora else 2.0
    plain = config.model_copy(
        update={
            "init": "kaiming",
            "r": 2 * config.r,
            "alpha": more * config.alpha,
            "rank_pattern": {path: 2 * rank for path, rank in config.rank_pattern.items()},
            "alpha_pattern": {path: more * alpha for path, alpha in config.alpha_pattern.items()},
        }
    )
    weights: dict[str, Tensor] = {}
    for path, layer in _wrappers.wrappers(model):
        assert isinstance(layer, LoraLinear)
        for side, factor in zip("AB", layer.factors(), strict=True):
            weights[f"{_wrappers.PREFIX}{path}.lora_{side}.weight"] = factor.detach()
    return plain, weights


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update `factor` times as strong: B carries it, so that alpha stays and PEFT loads it as it is.

    Raises Mistake for PiSSA as PEFT keeps it, whose B holds part of the base too; an artifact of ours is plain LoRA.
    """
    if _attachment.expect(model, _NAME).config.init == "pissa":
        raise Mistake(
            "scale: lora is not a change added to the base's weights while it is PiSSA as peft keeps it; "
            "expected plain LoRA, which it is once it is saved with tunesmith"
        )
    carries = ("lora_B", "lora_embedding_B")
    return {name: w * factor if not {*name.split(".")}.isdisjoint(carries) else w for name, w in weights.items()}


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`: every target spelled out, nothing left to a default."""
    stacks = [(path, layer) for path, layer in _wrappers.wrappers(model) if isinstance(layer, LoraExperts)]
    return {
        **_low_rank.to_peft(model, config),
        "init_lora_weights": "gaussian" if config.init == "gaussian" else True,
        "target_parameters": [f"{path}.{name}" for path, layer in stacks for name in layer.changes] or None,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for an adapter that PEFT wrote, from its settings and the names of its weights.

    Raises Mistake for a variant of LoRA that is not understood here (one that changes the base in a way of its own).
    """
    if settings.get("use_dora"):
        raise _peft_settings.NotMine("lora: use_dora: True is another method; expected plain LoRA")
    _peft_settings.refuse_unknown(settings, _low_rank.UNDERSTOOD | {"target_parameters"}, _NAME)
    start = settings.get("init_lora_weights", True)
    if start != "pissa":
        _low_rank.refuse_changed_base(start, _NAME)
    return Config(
        **_low_rank.from_peft(settings, names, _NAME),
        init=start if start in ("gaussian", "pissa") else "kaiming",
        target_parameters=settings.get("target_parameters") or [],
    )


def _strongest(weight: Tensor, rank: int, scaling: float, path: str) -> tuple[Tensor, Tensor]:
    """A and B for `weight [out, in]`: ``s B A`` is its best approximation of this rank (PiSSA's eqs. 2 and 3)."""
    if rank > min(weight.shape):
        raise Mistake(
            f"method.r: such a start needs a layer with {rank} directions; {path} has {min(weight.shape)}; "
            f"type a smaller r, or give it its own in rank_pattern"
        )
    left, strengths, right = torch.linalg.svd(weight, full_matrices=False)
    root = (strengths[:rank] / scaling).sqrt()
    return (root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous()


def _refuse_impossible(config: Config, found: Mapping[str, nn.Module], stacks: Mapping[str, Any]) -> None:
    other = [path for path in found if _is_embedding(found[path])] or list(stacks)
    if config.init in ("pissa", "loftq") and other:
        raise Mistake(f"method.init: {config.init} starts linear layers alone; {other[0]} is none; type init kaiming")
    whole = [path for path, base in found.items() if not hasattr(base, "dequantized")]
    if config.init == "loftq" and whole:
        raise Mistake(
            f"method.init: loftq starts from what quantization took away; {whole[0]} is not quantized; "
            "type quantization nf4, or init pissa"
        )
    if stacks and config.dropout:
        raise Mistake("method.dropout: target_parameters cannot leave inputs out; expected 0; type dropout 0")
    if twice := found.keys() & stacks.keys():
        raise Mistake(f"method.target_parameters: {min(twice)} is among target_modules already; exclude it there")


def _is_embedding(base: nn.Module) -> bool:
    return isinstance(base, nn.Embedding)


def _is_the_base(tensor: Tensor, base: Any) -> bool:
    return base is not None and torch.equal(tensor.to(base.weight), base.weight)

"""A soft prompt spoken by a small network while it is learned, so that its tokens move together; as small in the end.

P-tuning (arXiv 2103.10385, section 3.2): the virtual tokens are ``MLP(e)`` or ``MLP(LSTM(e))`` of trained vectors `e`.
Here the network stands beside a skip connection, ``e + MLP(e)`` (arXiv 2305.03937, section 3), and its last layer is
zero at the start: training begins at real words. The artifact holds what the network says in the end, as peft writes
it; the network itself is only needed to train.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from tunesmith.methods import _attachment, _soft_prompt, prompt_tuning
from tunesmith.methods.prompt_tuning import resolve as resolve

FAMILY = "additive"
GOOD_FOR = "where prompt_tuning is unsteady: a network steers it, the file is as small"
LEARNING_RATE = 2e-3
MERGEABLE = False
MIXABLE = True
PEFT_TYPE: str | None = "P_TUNING"
WHOLE = False

_NAME = "p_tuning"


class Config(prompt_tuning.Config):
    """The keys of ``method: {name: p_tuning}``."""

    encoder_reparameterization_type: Literal["MLP", "LSTM"] = Field(
        "MLP", description="the network that makes the virtual tokens"
    )
    encoder_hidden_size: int | None = Field(None, ge=1, description="its width; default: the model's")
    encoder_num_layers: int = Field(2, ge=1, description="layers of the LSTM; an MLP has three")
    encoder_dropout: float = Field(0.0, ge=0, lt=1, description="dropout between the layers of the LSTM")


class Encoder(nn.Module):
    """``e + MLP(e)`` or ``e + MLP(LSTM(e))`` of `e [tokens, width]`; equal to `e` at the start."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        hidden = config.encoder_hidden_size or width
        self.lstm: nn.LSTM | None = None
        if config.encoder_reparameterization_type == "LSTM":
            layers = config.encoder_num_layers
            dropout = config.encoder_dropout if layers > 1 else 0.0
            self.lstm = nn.LSTM(width, hidden, layers, bidirectional=True, dropout=dropout)
            first: list[nn.Module] = [nn.Linear(2 * hidden, 2 * hidden)]
        else:
            first = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden)]
        last = nn.Linear(2 * hidden if self.lstm else hidden, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*first, nn.ReLU(), last)

    def forward(self, start: Tensor) -> Tensor:
        """Map `[tokens, width]` to the same."""
        read = self.lstm(start)[0] if self.lstm is not None else start
        spoken: Tensor = self.mlp(read)
        return start + spoken


class SpokenTokens(nn.Module):
    """An embedding `base` of V rows with virtual tokens laid on as ids V, V + 1, …: what `encoder` makes of `start`.

    Without an encoder, as after loading, they are `start [tokens, hidden]` itself. Both are float32 parameters.
    """

    def __init__(self, base: nn.Embedding, start: Tensor, encoder: nn.Module | None) -> None:
        super().__init__()
        self.base = base
        self.start = nn.Parameter(start)
        self.encoder = encoder

    @property
    def weight(self) -> Tensor:
        """The base's rows: what a tied output head shares and transformers looks for."""
        return self.base.weight

    @property
    def virtual(self) -> Tensor:
        """The virtual tokens, `[tokens, hidden]`."""
        if self.encoder is None:
            return self.start
        spoken: Tensor = self.encoder(self.start)
        return spoken

    def forward(self, ids: Tensor) -> Tensor:
        """Map `ids [...]` to `[..., hidden]`, in the type the base returns."""
        if bool((ids < self.base.num_embeddings).all()):  # as in every step of generation: nothing to be spoken
            embedded: Tensor = self.base(ids)
            return embedded
        return prompt_tuning.look_up(self.base, self.virtual, ids)


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and lay the virtual tokens on its input embedding; a tied output head keeps its own rows.

    Raises Mistake when ``init: text`` has no tokens to start from (see `resolve`), or some the model does not have.
    """
    _attachment.refuse_stacking(model, _NAME)
    base = prompt_tuning.reader(model).get_input_embeddings()
    start = prompt_tuning.start(base, config)
    _attachment.claim(model, _NAME)
    # Made on the CPU, so that a seed means the same start on every device.
    encoder = Encoder(start.shape[1], config).to(start.device)
    prompt_tuning.reader(model).set_input_embeddings(SpokenTokens(base, start, encoder).train(base.training))


def detach(model: nn.Module) -> None:
    """Take the virtual tokens away: the base's own embedding is back."""
    _attachment.expect(model, _NAME)
    prompt_tuning.reader(model).set_input_embeddings(_layer(model).base)
    _attachment.release(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The trained vectors and the encoder's weights by name; without an encoder ``prompt_embeddings`` alone."""
    layer = _layer(model)
    if layer.encoder is None:
        return {_soft_prompt.KEY: layer.start.detach()}
    weights = {f"encoder.{name}": weight.detach() for name, weight in layer.encoder.named_parameters()}
    return {"start": layer.start.detach(), **weights}


def written(model: nn.Module, config: Config) -> tuple[Config, dict[str, Tensor]]:
    """What goes to disk: the virtual tokens `[num_virtual_tokens, hidden]` under PEFT's ``prompt_embeddings``."""
    return config, {_soft_prompt.KEY: _layer(model).virtual.detach()}


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` or `written` gave back; after the latter there is no encoder any more.

    Raises Mistake unless names and shapes fit exactly.
    """
    layer = _layer(model)
    if _soft_prompt.KEY in weights:
        _attachment.copy_into({_soft_prompt.KEY: layer.start.detach()}, weights, _NAME)
        layer.encoder = None
    else:
        _attachment.copy_into(state(model), weights, _NAME)


def prefix_tokens(model: nn.Module) -> tuple[int, ...]:
    """The ids of the virtual tokens; every batch puts them before every sequence."""
    layer = _layer(model)
    return _soft_prompt.ids(layer.base, len(layer.start))


def to_peft(model: nn.Module, config: Config) -> dict[str, Any]:
    """This method's part of `adapter_config.json`."""
    tokens, width = _layer(model).start.shape
    return {
        **_soft_prompt.settings_for(model, tokens, width),
        "encoder_reparameterization_type": config.encoder_reparameterization_type,
        "encoder_hidden_size": config.encoder_hidden_size or width,
        "encoder_num_layers": config.encoder_num_layers,
        "encoder_dropout": config.encoder_dropout,
    }


def from_peft(settings: Mapping[str, Any], names: Collection[str]) -> Config:
    """A Config for a soft prompt that PEFT wrote. Raises Mistake for what is not understood here."""
    _soft_prompt.check(settings, names, _NAME, _OWN)
    encoder = {key: settings[key] for key in Config.model_fields if key.startswith("encoder") and key in settings}
    return Config(num_virtual_tokens=settings["num_virtual_tokens"], init="vocabulary", **encoder)


_OWN = ("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout")


def _layer(model: nn.Module) -> SpokenTokens:
    _attachment.expect(model, _NAME)
    layer = prompt_tuning.reader(model).get_input_embeddings()
    assert isinstance(layer, SpokenTokens)
    return layer

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _artifact, _attachment, p_tuning
from tunesmith.methods.p_tuning import Config, Encoder

each_encoder = pytest.mark.parametrize("kind", ["MLP", "LSTM"])


def _config(kind: str, **keys: Any) -> Config:
    return Config(num_virtual_tokens=5, init_ids=(7, 8, 9), encoder_reparameterization_type=kind, **keys)


@each_encoder
def test_training_begins_at_the_words(kind: str, toy_llama: Any) -> None:
    rows = toy_llama.get_input_embeddings().weight[[7, 8, 9, 7, 8]]
    p_tuning.attach(toy_llama, _config(kind))
    assert torch.equal(p_tuning.written(toy_llama, Config())[1]["prompt_embeddings"], rows)


def test_the_mlp_by_hand() -> None:
    encoder = Encoder(1, Config(encoder_hidden_size=1))
    for layer, (weight, bias) in zip(encoder.mlp[::2], ((2.0, 1.0), (3.0, -1.0), (0.5, 0.25)), strict=True):
        assert isinstance(layer, nn.Linear)
        layer.weight.data.fill_(weight)
        layer.bias.data.fill_(bias)
    # e = 1: relu(2·1 + 1) = 3, relu(3·3 - 1) = 8, 0.5·8 + 0.25, and e itself; e = -1: relu(-1) = 0, relu(-1) = 0
    assert encoder(torch.tensor([[1.0], [-1.0]])).flatten().tolist() == [5.25, -0.75]


def test_an_lstm_lets_every_vector_hear_of_every_other(toy_llama: Any) -> None:
    encoder = Encoder(4, Config(encoder_reparameterization_type="LSTM", encoder_hidden_size=3, encoder_num_layers=1))
    encoder.mlp[-1].reset_parameters()
    start = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (felt,) = torch.autograd.grad(encoder(start)[0].sum(), start)
    assert felt.abs().sum(1).min() > 0  # the first from the last, through the way back
    assert encoder.lstm is not None
    assert (encoder.lstm.hidden_size, encoder.lstm.bidirectional, encoder.lstm.num_layers) == (3, True, 1)


@each_encoder
def test_the_artifact_holds_what_the_encoder_says_and_nothing_else(kind: str, toy_llama: Any, tmp_path: Path) -> None:
    config = _config(kind, encoder_hidden_size=6)
    p_tuning.attach(toy_llama, config)
    toy_llama.get_input_embeddings().encoder.mlp[-1].reset_parameters()
    spoken = p_tuning.written(toy_llama, Config())[1]["prompt_embeddings"]
    _artifact.save(tmp_path / "artifact", toy_llama, "p_tuning", config, _artifact.Origin("toy"))
    written = load_file(tmp_path / "artifact" / "adapter_model.safetensors")
    assert written.keys() == {"prompt_embeddings"}
    assert torch.equal(written["prompt_embeddings"], spoken)
    p_tuning.detach(toy_llama)
    _artifact.load(tmp_path / "artifact", toy_llama)
    assert p_tuning.state(toy_llama).keys() == {"prompt_embeddings"}
    assert _attachment.trainable(toy_llama).names == ("model.embed_tokens.start",)


def test_a_number_that_only_the_encoder_makes_infinite_is_not_written(toy_llama: Any, tmp_path: Path) -> None:
    p_tuning.attach(toy_llama, _config("MLP"))
    toy_llama.get_input_embeddings().encoder.mlp[-1].bias.data.fill_(3e38)
    toy_llama.get_input_embeddings().start.data.fill_(3e38)
    with pytest.raises(Mistake, match="not saved: 160 of 160 numbers in prompt_embeddings are NaN or infinite"):
        _artifact.save(tmp_path / "artifact", toy_llama, "p_tuning", _config("MLP"), _artifact.Origin("toy"))


def test_dropout_between_one_layer_and_nothing_is_none() -> None:
    keys = {"encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.5}
    assert Encoder(4, Config(encoder_num_layers=1, **keys)).lstm.dropout == 0.0  # torch would warn
    assert Encoder(4, Config(encoder_num_layers=2, **keys)).lstm.dropout == 0.5


def test_peft_settings_become_ours() -> None:
    settings = {
        "num_virtual_tokens": 4,
        "encoder_reparameterization_type": "LSTM",
        "encoder_hidden_size": 12,
        "encoder_num_layers": 3,
        "encoder_dropout": 0.1,
    }
    config = p_tuning.from_peft(settings, {"prompt_embeddings"})
    assert {key: getattr(config, key) for key in settings} == settings
    with pytest.raises(Mistake, match="num_transformer_submodules is not 1"):
        p_tuning.from_peft(settings | {"num_transformer_submodules": 2}, {"prompt_embeddings"})
    with pytest.raises(Mistake, match="holds no prompt_embeddings"):
        p_tuning.from_peft(settings, {"other"})

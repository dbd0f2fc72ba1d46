from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.models.info import info
from tunesmith.models.load import NO_WINDOW, context_length, kind_of, load, load_tokenizer


@pytest.fixture
def folder(toy_folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(toy_folder, copy)
    return copy


def configure(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_what_is_loaded_is_what_was_saved(toy_folder: Path, toy_llama: Any, toy_tokenizer: Any) -> None:
    loaded = load(str(toy_folder))
    ids = torch.tensor([toy_tokenizer("The film was wonderful.").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, toy_llama(ids).logits, rtol=0, atol=0)
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.tokenizer.chat_template == toy_tokenizer.chat_template
    assert (loaded.name, loaded.folder) == (str(toy_folder), toy_folder)


def test_weights_keep_the_type_they_are_stored_in(toy_llama: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    toy_llama.bfloat16().save_pretrained(tmp_path)
    toy_tokenizer.save_pretrained(tmp_path)
    assert {weight.dtype for weight in load(str(tmp_path)).model.parameters()} == {torch.bfloat16}


def test_loading_never_tries_the_network(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", False, raising=False)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was tried"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was tried"))
    load(str(toy_folder), offline=False)


def test_a_tokenizer_alone(toy_folder: Path, toy_tokenizer: Any) -> None:
    assert load_tokenizer(str(toy_folder)).get_vocab() == toy_tokenizer.get_vocab()


def test_a_model_without_a_chat_template_loads(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert load(str(folder)).tokenizer.chat_template is None


def test_a_model_without_a_tokenizer_is_told(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Mistake, match=r"has no tokenizer; expected tokenizer\.json"):
        load(str(folder))


def test_weights_that_are_missing_are_never_made_up(folder: Path, toy_llama: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Mistake, match=r"lacks 1 weights \(model.layers.1.mlp.up_proj.weight"):
        load(str(folder))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architectures": ["BertModel"]}, "got an encoder; expected a model that writes text"),
        ({"is_encoder_decoder": True}, "has no text-to-text model of the architecture 'llama'"),
        ({"model_type": "tomorrow"}, "does not know the architecture 'tomorrow'; type `pip install"),
        ({"model_type": "x", "auto_map": {"AutoModel": "x.py--X"}}, "needs code of its own, which we do not run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "got weights in gptq; expected plain ones"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(folder: Path, keys: dict[str, Any], message: str) -> None:
    configure(folder, **keys)
    with pytest.raises(Mistake, match=message):
        load(str(folder))


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    configure(folder, auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"})
    load(str(folder))  # the architecture is one of transformers' own, so its own code serves
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2"])
def test_the_context_length_of_every_kind(kind: str, toy_model: Callable[[str], Any]) -> None:
    model = toy_model(kind)
    assert context_length(model.config) == 512
    assert kind_of({"architectures": [type(model).__name__]}) == "decoder"


def test_a_model_without_a_window_has_a_wide_one() -> None:
    from transformers import MambaConfig

    assert context_length(MambaConfig()) == NO_WINDOW


@pytest.mark.parametrize("kind", ["t5", "flan"])
def test_a_text_to_text_model_is_loaded_whole(kind: str, toy_model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    made = toy_model(kind)
    made.save_pretrained(tmp_path)
    toy_tokenizer.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert type(loaded.model) is type(made)
    state = made.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.model.state_dict().items())
    ids = torch.tensor([[5, 81, 2, 300]])
    logits = [model(input_ids=ids, decoder_input_ids=ids).logits for model in (loaded.model, made)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    assert (loaded.model.lm_head.weight is loaded.model.shared.weight) == (kind == "t5")
    told = info(str(tmp_path))
    assert (told.kind, told.layers, told.hidden) == ("encoder-decoder", 2, 32)
    assert told.parameters == sum(parameter.numel() for parameter in made.parameters())

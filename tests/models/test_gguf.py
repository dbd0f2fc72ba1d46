from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from tunesmith.core.errors import Mistake
from tunesmith.models.load import load
from tunesmith.models.source import find

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TEXTS = ["In 2023,  42  cost 1 234", "<|im_start|>user\nhi<|im_end|>\n", " the film\n\n\twas ünïque 日本", "a   7"]


def write(path: Path, model: Any, tokenizer: Any, pre: str, *, quantized: bool = False) -> Path:
    """A toy Llama as llama.cpp's converter would write it, query and key rows interleaved for its way of rotating."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        array = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = array.shape[0] // config.head_dim
            array = array.reshape(heads, 2, config.head_dim // 2, -1).swapaxes(1, 2).reshape(array.shape).copy()
        if quantized and array.ndim == 2:
            writer.add_tensor(
                gguf_name(name),
                gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0),
                raw_dtype=gguf.GGMLQuantizationType.Q8_0,
            )
        else:
            writer.add_tensor(gguf_name(name), array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, *inner = name.removesuffix(".weight").split(".")
        return f"blk.{layer}.{NAMES['.'.join(inner)]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


@pytest.fixture
def model(toy_llama: Any) -> Any:
    """The toy Llama with weights that bfloat16 holds exactly, so that conversion must give them back bit for bit."""
    for weight in toy_llama.parameters():  # not `.bfloat16()`, which would round the rotary frequencies too
        weight.data = weight.data.bfloat16().float()
    return toy_llama


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.float()(torch.tensor([tokenizer(TEXTS[2]).input_ids])).logits
    return result


def test_a_gguf_becomes_the_model_it_was_made_from(model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    loaded = load(str(write(tmp_path / "toy.gguf", model, toy_tokenizer, "gpt-2")))
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config.tie_word_embeddings
    assert not hasattr(loaded.model.config, "quantization_config")
    torch.testing.assert_close(logits(loaded.model, toy_tokenizer), logits(model, toy_tokenizer), rtol=0, atol=0)


def test_quantized_weights_are_unpacked(model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    loaded = load(str(write(tmp_path / "toy.Q8_0.gguf", model, toy_tokenizer, "gpt-2", quantized=True)))
    kind = gguf.GGMLQuantizationType.Q8_0
    for _, weight in model.named_parameters():
        if weight.ndim == 2:  # blocks of 32 run along a row, so the order of rows does not matter
            packed = gguf.quants.quantize(weight.detach().float().numpy(), kind)
            weight.data = torch.from_numpy(gguf.quants.dequantize(packed, kind)).bfloat16().float()
    torch.testing.assert_close(logits(loaded.model, toy_tokenizer), logits(model, toy_tokenizer), rtol=0, atol=0)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm"])
def test_the_tokenizer_is_the_one_the_model_learned_with(
    pre: str, model: Any, toy_tokenizer: Any, tmp_path: Path
) -> None:
    expected = copy.deepcopy(toy_tokenizer)
    if pre == "smollm":
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        expected.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        )
    got = load(str(write(tmp_path / "toy.gguf", model, toy_tokenizer, pre))).tokenizer
    pieces = [piece for piece, _ in got.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a   73")]
    assert pieces == {"gpt-2": ["a", "ĠĠ", "Ġ73"], "smollm": ["a", "ĠĠĠ", "7", "3"]}[pre]
    assert got.get_vocab() == toy_tokenizer.get_vocab()
    for text in TEXTS:
        assert got(text).input_ids == expected(text).input_ids
        assert got.decode(got(text).input_ids) == text
    assert (got.bos_token_id, got.eos_token_id, got.pad_token_id, got.unk_token_id) == (1, 2, 2, 0)
    assert got("<|im_end|>").input_ids == [2]
    assert got.chat_template == toy_tokenizer.chat_template


def test_it_is_converted_once_and_anew_when_the_file_changes(model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "toy.gguf", model, toy_tokenizer, "gpt-2")
    assert find(str(file)) is None
    first = load(str(file))
    made = first.folder.stat().st_mtime_ns
    assert load(str(file)).folder.stat().st_mtime_ns == made
    assert find(str(file)) == first.folder
    with torch.no_grad():
        model.model.norm.weight.fill_(0.5)
    write(file, model, toy_tokenizer, "gpt-2")
    second = load(str(file))
    assert second.folder != first.folder
    assert second.identity != first.identity


def test_what_is_no_gguf_is_told(tmp_path: Path) -> None:
    (tmp_path / "web.gguf").write_text("<html>not found</html>")
    with pytest.raises(Mistake, match="does not start with GGUF"):
        load(str(tmp_path / "web.gguf"))
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(Mistake, match="does not start with GGUF"):
        load(str(tmp_path / "empty.gguf"))


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_cut_file_is_told_and_leaves_nothing(kept: float, model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "toy.gguf", model, toy_tokenizer, "gpt-2")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(Mistake, match=r"expected a whole \.gguf") as caught:
        load(str(file))
    assert "\n" not in str(caught.value)
    assert find(str(file)) is None


def test_an_architecture_nobody_knows_is_told(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "tomorrow")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_merges([])
    writer.add_tensor("x", np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(Mistake, match="architecture that transformers knows"):
        load(str(tmp_path / "odd.gguf"))

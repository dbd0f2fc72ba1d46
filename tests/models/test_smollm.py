from __future__ import annotations

import time
from typing import Any, cast

import pytest
import torch

from tunesmith.models.info import info
from tunesmith.models.load import context_length, load
from tunesmith.models.source import fetch

pytestmark = [pytest.mark.network, pytest.mark.model, pytest.mark.usefixtures("online")]


def test_the_quickstart_model_is_pulled_converted_and_answers() -> None:
    name = "smollm2-135m-instruct"
    fetch(name)
    start = time.perf_counter()
    loaded = load(name, offline=True)
    assert time.perf_counter() - start < 15  # 0.6 s measured on two cores; a conversion takes longer than this bound
    tokenizer, model = loaded.tokenizer, cast(Any, loaded.model)
    assert context_length(model.config) == 8192
    assert info(name).parameters == sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.tokenize("a  2023") == ["a", "ĠĠ", "2", "0", "2", "3"]
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    ids = torch.tensor([tokenizer(prompt).input_ids])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[
        0, ids.shape[1] :
    ]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_the_encoder_can_be_pulled_and_described() -> None:
    folder = fetch("all-minilm-l6-v2")
    told = info("all-minilm-l6-v2")
    assert (told.kind, told.layers, told.hidden, told.folder) == ("encoder", 6, 384, folder)
    assert told.parameters == 22_713_216

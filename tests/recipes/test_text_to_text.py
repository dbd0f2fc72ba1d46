"""A text-to-text model through the whole house: climbed, trained, evaluated and asked, as a decoder is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message
from tunesmith.models.load import load
from tunesmith.prompts.render import Template

ToyTask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def t5_folder(toy_model: Callable[..., Any], toy_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy T5 on disk; like the real ones it has no chat template."""
    folder = tmp_path_factory.mktemp("t5") / "toy-t5"
    toy_model("flan").save_pretrained(folder)
    toy_tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture
def task(toy_task: ToyTask, t5_folder: Path) -> ToyTask:
    return lambda **keys: toy_task(**{"model": str(t5_folder), **keys})


def test_every_rung_is_climbed(task: ToyTask) -> None:
    rungs = ["zero_shot", "few_shot", "prompt_tuning", "bitfit", "lora", "full"]
    told = tunesmith.climb(task(rungs=rungs, budget={"minutes": 2}, max_steps=12, output_dir="runs/climb"))
    tried = {one["name"]: one for one in told["rungs"]}
    assert list(tried) == rungs
    for one in tried.values():
        assert 0 <= one["value"] <= 1
    assert tried["zero_shot"]["forgetting_kl"] == 0
    assert tried["lora"]["forgetting_kl"] > 0


def test_what_is_trained_is_learned_kept_and_evaluated_alike(task: ToyTask) -> None:
    result = tunesmith.train(task(learning_rate=1e-2, num_train_epochs=8))
    assert result["value"] > 0.9
    settings = json.loads(Path("runs/toy/artifact/adapter_config.json").read_text())
    assert settings["task_type"] == "SEQ_2_SEQ_LM"
    assert set(settings["target_modules"]) == {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}
    again = tunesmith.evaluate(task(), artifact="runs/toy", split="validation")
    assert again["value"] == result["value"]


def test_a_text_is_generated_and_a_conversation_goes_on(task: ToyTask) -> None:
    written = task(task={"name": "generation", "max_new_tokens": 6}, max_steps=3)
    tunesmith.train(written)
    speaker = tunesmith.speaker(artifact="runs/toy")
    assert speaker.answer(["the film was dull"])[0]["output"]
    heard: list[str] = []
    messages = [Message("user", "Hello."), Message("assistant", "Yes?")]
    reply = speaker.reply([*messages, Message("user", "Why?")], max_new_tokens=6, on_text=heard.append)
    assert "".join(heard) == reply


def test_the_source_is_closed_and_the_answer_too(t5_folder: Path) -> None:
    loaded = load(str(t5_folder))
    template = Template(loaded.tokenizer, form="text_to_text")
    talk = (Message("system", "Be kind."), Message("user", "Who?"))
    whole = template.conversation((*talk, Message("assistant", "You.")))
    assert loaded.tokenizer.decode(whole.ids) == "Be kind.\n\nWho?<|im_end|>You.<|im_end|>"
    assert loaded.tokenizer.decode(template.prompt(talk)) == "Be kind.\n\nWho?<|im_end|>"
    assert sum(whole.weights) == len(whole.ids) - len(template.prompt(talk))
    assert template.end_ids == (loaded.tokenizer.eos_token_id,)


def test_only_the_last_turn_of_a_chat_can_be_learned(task: ToyTask, tmp_path: Path) -> None:
    turns = [{"role": role, "content": f"{role} {place}"} for place in range(2) for role in ("user", "assistant")]
    Path("chats.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    keys = {"task": {"name": "chat"}, "data": {"train": "chats.jsonl", "validation": 0, "test": 0}}
    with pytest.raises(Mistake, match="make it the end of a row of its own"):
        tunesmith.train(task(**keys))

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tunesmith.cli._main import main
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message
from tunesmith.recipes._work import read_examples
from tunesmith.recipes.generate import Speaker, speaker

ToyTask = Callable[..., dict[str, Any]]
TEXTS = ["the film was wonderful 3", "the plot was dull 1"]


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, toy_task: ToyTask) -> Path:
    """The folder of a climb."""
    workplace = tmp_path_factory.mktemp("generate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.delenv("TUNESMITH_STORE", raising=False)
        tunesmith.climb(toy_task(num_train_epochs=3), rungs=["zero_shot", "few_shot", "lora"], minutes=10)
    return workplace / "runs/toy"


@pytest.fixture(scope="module")
def lora(climbed: Path) -> Speaker:
    return speaker(artifact=climbed / "rungs/lora", project=tunesmith.load(climbed / "config.yaml"))


@pytest.mark.parametrize("rung", ["zero_shot", "few_shot", "lora"])
def test_an_artifact_answers_the_validation_rows_as_the_climb_saw_them(rung: str, climbed: Path) -> None:
    project = tunesmith.load(climbed / "config.yaml")
    _, examples = read_examples(project)
    spoken = speaker(artifact=climbed / "rungs" / rung, project=project)
    answers = spoken.answer([row.input for row in examples.validation])
    scores = [json.loads(line) for line in (climbed / "rungs" / rung / "scores.jsonl").read_text().splitlines()]
    assert [answer["output"] for answer in answers] == [score["prediction"] for score in scores]
    outcome = json.loads((climbed / "rungs" / rung / "outcome.json").read_text())
    assert len(spoken.prompting.shots) == outcome["config"].get("shots", 0)
    assert bool(spoken.prompting.offsets) == outcome["config"].get("calibrated", False)


def test_labels_come_with_their_probabilities(lora: Speaker) -> None:
    first, second = lora.answer(TEXTS)
    assert (first["input"], first["output"]) == (TEXTS[0], "positive")
    assert second["output"] == "negative"
    assert first["probabilities"].keys() == {"negative", "positive"}
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    assert first["probabilities"]["positive"] > 0.5


def test_one_text_is_answered_as_among_others(lora: Speaker) -> None:
    together = lora.answer(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        [alone] = lora.answer([text])
        assert alone["output"] == answer["output"]
        assert alone["probabilities"]["positive"] == pytest.approx(answer["probabilities"]["positive"], abs=1e-5)


def test_a_plain_model_writes_freely(toy_folder: Path) -> None:
    plain = tunesmith.speaker(model=str(toy_folder))
    assert plain.answerer.task.name == "generation"
    first, second = plain.answer(TEXTS)
    assert first == {"input": TEXTS[0], "output": first["output"]}
    assert plain.answer(TEXTS) == [first, second]


def test_pieces_of_a_reply_join_to_it(toy_folder: Path) -> None:
    plain, pieces = tunesmith.speaker(model=str(toy_folder)), list[str]()
    talk = [Message("system", "Be brief."), Message("user", "hello")]
    reply = plain.reply(talk, max_new_tokens=24, on_text=pieces.append)
    assert "".join(pieces) == reply
    assert len(pieces) > 1
    assert plain.reply(talk, max_new_tokens=24) == reply
    assert plain.reply([*talk, Message("assistant", reply), Message("user", "more")], max_new_tokens=8) is not None


def test_sampling_follows_from_the_seed(toy_folder: Path) -> None:
    plain, talk = tunesmith.speaker(model=str(toy_folder)), [Message("user", "hello")]

    def sampled(seed: int) -> str:
        return plain.reply(talk, max_new_tokens=12, temperature=1.5, top_p=0.95, seed=seed)

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_a_chat_artifact_takes_texts_as_turns(toy_task: ToyTask) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "hello"}]}
        for n in range(9)
    ]
    Path("chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": "chats.jsonl", "validation": 0.0, "test": 0.0}
    task = toy_task(task={"name": "chat", "max_new_tokens": 4}, data=data, max_steps=2)
    tunesmith.train(task, evaluate=False)
    [answer] = tunesmith.speaker("runs/toy").answer(["hi 3"])
    assert answer["input"] == "hi 3"
    assert isinstance(answer["output"], str)


def test_what_does_not_fit_is_refused(climbed: Path, toy_folder: Path, toy_model: Callable[..., Any]) -> None:
    with pytest.raises(Mistake, match="nothing there; expected a run's folder or an adapter"):
        tunesmith.speaker("runs/none")
    Path("empty").mkdir()
    with pytest.raises(Mistake, match="no artifact there"):
        tunesmith.speaker("empty")
    shutil.copytree(climbed, "mine")
    prompting = Path("mine/rungs/few_shot/artifact/prompting.json")
    prompting.write_text(prompting.read_text().replace(str(toy_folder), "other"))
    shutil.copytree(toy_folder, "other")
    assert tunesmith.speaker("mine/rungs/few_shot").answer(TEXTS)  # the same weights under another name
    toy_model("llama", seed=1).save_pretrained("other")
    with pytest.raises(Mistake, match="made with other weights than other has now"):
        tunesmith.speaker("mine/rungs/few_shot")
    shutil.copytree(toy_folder, "other", dirs_exist_ok=True)
    template = Path("other/chat_template.jinja")
    template.write_text(template.read_text().replace("helpful toy", "grumpy toy"))
    with pytest.raises(Mistake, match="made with another chat template than other has now"):
        tunesmith.speaker("mine/rungs/few_shot")


def test_an_adapter_of_somebody_else_says_its_base_or_needs_to_be_told(climbed: Path, toy_task: ToyTask) -> None:
    shutil.copytree(climbed / "rungs/lora/artifact", "theirs")
    for name in ("tunesmith.json", "prompting.json"):
        Path("theirs", name).unlink()
    assert tunesmith.speaker("theirs").answerer.task.name == "generation"
    settings = json.loads(Path("theirs/adapter_config.json").read_text())
    Path("theirs/adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(Mistake, match="does not say which model it belongs to; give a task file"):
        tunesmith.speaker("theirs")
    told = speaker(artifact="theirs", project=tunesmith.load(toy_task()))
    assert told.answer(TEXTS[:1])[0]["output"] == "positive"


def test_the_command_answers(
    climbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = str(climbed / "rungs/lora")
    assert main(["generate", "--artifact", lora, *TEXTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("positive (")
    assert lines[0].endswith("%)")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS) + "\n\n"))
    assert main(["generate", "--artifact", str(climbed), "--json"]) == 0
    assert [answer["input"] for answer in json.loads(capsys.readouterr().out)] == TEXTS
    assert main(["generate", *TEXTS]) == 2
    assert "got neither --artifact nor --model" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", "--artifact", str(climbed)]) == 2
    assert "got no text" in capsys.readouterr().err


def test_the_command_takes_a_task_file_for_its_model(toy_task: ToyTask, capsys: pytest.CaptureFixture[str]) -> None:
    Path("task.yaml").write_text(yaml.safe_dump(toy_task()))
    assert main(["generate", "--config", "task.yaml", "--json", TEXTS[0]]) == 0
    assert json.loads(capsys.readouterr().out)[0]["probabilities"]


def test_the_command_chats(
    toy_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nand more\n\nnever read\n"))
    assert main(["chat", "--model", str(toy_folder), "--max-new-tokens", "5", "--system", "Be brief.", "--json"]) == 0
    heard = json.loads(capsys.readouterr().out)
    assert [turn["user"] for turn in heard] == ["hello", "and more"]
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert main(["chat", "--model", str(toy_folder), "--max-new-tokens", "5", "--system", "Be brief."]) == 0
    assert capsys.readouterr().out.strip() == heard[0]["assistant"]

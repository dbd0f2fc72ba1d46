"""Sentence vectors: those of transformers by hand, in the texts' order, with and without an artifact, to any file."""

from __future__ import annotations

import copy
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers.normalizers import Replace
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import tunesmith
from tunesmith.core.errors import Mistake
from tunesmith.engine import pooling
from tunesmith.evaluation.forgetting import embedded
from tunesmith.methods import _attachment
from tunesmith.recipes._body import open_body
from tunesmith.recipes._vectors import read_texts, texts_of_lines

# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ToyTask = Callable[..., dict[str, Any]]
TEXTS = [
    "the film was wonderful, funny and moving, and the acting was great",
    "dull",
    "Is this movie review positive or negative? The plot was dull, the jokes were bad and nothing worked.",
    "what is the capital of France?",
    "dull",
]
KINDS = ("bert", "modernbert", "llama")
Folder = Callable[[str], Path]


@pytest.fixture
def folder(toy_encoder: Any, toy_reading_tokenizer: Any, toy_model: Any, toy_tokenizer: Any, tmp_path: Path) -> Folder:
    """A toy of a kind and its tokenizer on disk: an encoder's body, or a decoder."""

    def make(kind: str) -> Path:
        place, is_encoder = tmp_path / kind, kind in ("bert", "modernbert")
        (toy_encoder(kind, "Model") if is_encoder else toy_model(kind)).save_pretrained(place)
        (toy_reading_tokenizer if is_encoder else toy_tokenizer).save_pretrained(place)
        return place

    return make


def by_hand(place: Path, how: str, layer: int = -1) -> torch.Tensor:
    """What a person writes with transformers alone: all texts in one padded batch."""
    tokenizer, decoder = AutoTokenizer.from_pretrained(place), place.name == "llama"
    model = AutoModelForCausalLM.from_pretrained(place).model if decoder else AutoModel.from_pretrained(place)
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="right")
    with torch.no_grad():
        states = model.eval()(**batch, output_hidden_states=True).hidden_states[layer]
    mask = batch["attention_mask"]
    if how == "mean":
        found = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    else:
        place_of = mask.sum(1) - 1 if how == "last" else torch.zeros(len(TEXTS), dtype=torch.long)
        found = states[torch.arange(len(TEXTS)), place_of]
    made: torch.Tensor = normalize(found, dim=1)
    return made


@pytest.mark.parametrize("asked", ["mean", "first", "last", None])
@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_are_those_of_transformers(folder: Folder, kind: str, asked: Any) -> None:
    place = folder(kind)
    told = tunesmith.embed(TEXTS, model=str(place), precision="float32", pooling=asked)
    usual = "last" if kind == "llama" else "mean"
    assert told["pooling"] == (asked or usual)
    assert (told["vectors"].dtype, told["vectors"].shape) == (numpy.float32, (5, told["dimension"]))
    torch.testing.assert_close(torch.tensor(told["vectors"]), by_hand(place, asked or usual), rtol=0, atol=1e-5)


def test_a_body_is_found_under_a_head(toy_encoder: Any, toy_reading_tokenizer: Any, folder: Folder) -> None:
    place = folder("bert")
    toy_encoder("bert", "ForTokenClassification", seed=1, num_labels=5).save_pretrained(place)
    told = tunesmith.embed(TEXTS, model=str(place), precision="float32")
    torch.testing.assert_close(torch.tensor(told["vectors"]), by_hand(place, "mean"), rtol=0, atol=1e-5)


def test_a_body_that_is_not_whole_is_refused(folder: Folder) -> None:
    place = folder("bert")
    weights = load_file(place / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mistake, match=r"lacks 1 weights \(encoder\.layer\.1\.output\.dense\.weight"):
        tunesmith.embed(TEXTS, model=str(place))


def test_a_text_to_text_model_reads_with_its_encoder(toy_model: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    model = toy_model("t5")
    model.save_pretrained(tmp_path / "t5")
    toy_tokenizer.save_pretrained(tmp_path / "t5")
    told = tunesmith.embed(TEXTS, model=str(tmp_path / "t5"), precision="float32")
    with torch.no_grad():
        states = [model.get_encoder()(torch.tensor([toy_tokenizer(text)["input_ids"]]))[0][0] for text in TEXTS]
    wanted = normalize(torch.stack([one.mean(0) for one in states]), dim=1)
    torch.testing.assert_close(torch.tensor(told["vectors"]), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lower_layer_is_that_of_transformers(folder: Folder, kind: str) -> None:
    place = folder(kind)
    for layer in (1, -2):
        told = tunesmith.embed(TEXTS, model=str(place), precision="float32", pooling="mean", layer=layer)
        torch.testing.assert_close(torch.tensor(told["vectors"]), by_hand(place, "mean", 1), rtol=0, atol=1e-5)
    with pytest.raises(Mistake, match="layer: got 3; expected 1 to 2"):
        tunesmith.embed(TEXTS, model=str(place), layer=3)


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_is_as_together_in_the_texts_order(folder: Folder, kind: str) -> None:
    place, texts = str(folder(kind)), TEXTS * 3
    together = tunesmith.embed(texts, model=place, precision="float32")["vectors"]
    single = [tunesmith.embed(text, model=place, precision="float32")["vectors"][0] for text in TEXTS]
    numpy.testing.assert_allclose(together, numpy.stack(single * 3), rtol=0, atol=1e-5)


def test_lengths_are_the_models_own_unless_asked(folder: Folder) -> None:
    place = str(folder("bert"))
    plain = tunesmith.embed(TEXTS, model=place, normalize=False)["vectors"]
    unit = tunesmith.embed(TEXTS, model=place)["vectors"]
    lengths = numpy.linalg.norm(plain, axis=1)
    assert (abs(lengths - 1) > 0.1).all()
    numpy.testing.assert_allclose(unit, plain / lengths[:, None], rtol=0, atol=1e-6)


def test_every_answer_carries_its_price_and_what_it_is_of(folder: Folder) -> None:
    told = tunesmith.embed(TEXTS, model=str(folder("bert")), precision="float32")
    assert (told["texts"], told["dimension"], told["precision"], told["cut"]) == (5, 32, "float32", 0)
    assert len(told["identity"]) == 64
    assert 0 < told["seconds_per_text"] < told["seconds"]
    assert told["peak_memory_mb"] > 0
    cosines = numpy.array(told["cosine_similarities"])
    numpy.testing.assert_allclose(cosines, told["vectors"] @ told["vectors"].T, rtol=0, atol=1e-6)
    assert cosines[1, 4] == pytest.approx(1.0)
    assert tunesmith.embed(TEXTS * 3, model=str(folder("bert")))["cosine_similarities"] is None


def test_a_text_longer_than_the_window_is_cut_and_counted(folder: Folder) -> None:
    place = folder("bert")
    (place / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    told = tunesmith.embed(TEXTS, model=str(place), precision="float32")
    assert (told["max_length"], told["cut"]) == (12, 2)
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place)
    short = tokenizer(TEXTS[0], truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        wanted = normalize(model(**short).last_hidden_state.mean(1), dim=1)[0]
    torch.testing.assert_close(torch.tensor(told["vectors"][0]), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "first"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "first"),
    ],
)
def test_the_models_own_pooling_is_followed(folder: Folder, settings: dict[str, Any], wanted: str) -> None:
    place = folder("bert")
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **settings}))
    assert tunesmith.embed(TEXTS, model=str(place))["pooling"] == wanted
    assert tunesmith.embed(TEXTS, model=str(place), pooling="mean")["pooling"] == "mean"


def test_a_pooling_that_we_have_not_is_told(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder("bert")
    (place / "1_Pooling").mkdir()
    settings = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    (place / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(Mistake, match=r"asks for max_tokens and mean_tokens; expected mean_tokens, .*--pooling"):
        tunesmith.embed(TEXTS, model=str(place))
    types = ("models.Transformer", "models.Pooling", "models.Dense")
    (place / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.{name}"} for name in types]))
    tunesmith.embed(TEXTS, model=str(place), pooling="mean")
    assert "its files put Dense behind the pooling; left out here" in capsys.readouterr().err
    (place / "modules.json").write_text("{")
    with pytest.raises(Mistake, match=r"modules\.json: not JSON"):
        tunesmith.embed(TEXTS, model=str(place), pooling="mean")


def test_an_artifact_turns_the_vectors(toy_task: ToyTask, toy_encoder_folder: Path, toy_folder: Path) -> None:
    for base, method in ((toy_encoder_folder, "lora"), (toy_folder, "lora"), (toy_encoder_folder, "prompt_tuning")):
        keys = {"name": method} | ({"r": 4} if method == "lora" else {"num_virtual_tokens": 3})
        tunesmith.train(toy_task(model=str(base), method=keys, max_steps=4), evaluate=False)
        plain = tunesmith.embed(TEXTS, model=str(base), precision="float32")
        tuned = tunesmith.embed(TEXTS, artifact="runs/toy", precision="float32")
        assert (tuned["method"], tuned["pooling"]) == (method, plain["pooling"])
        assert tuned["max_length"] == plain["max_length"] - (3 if method == "prompt_tuning" else 0)
        assert float((tuned["vectors"] * plain["vectors"]).sum(1).max()) < 0.9999
        shutil.rmtree("runs")


def test_the_adapter_at_strength_nought_is_the_base(toy_task: ToyTask, toy_encoder_folder: Path) -> None:
    tunesmith.train(toy_task(model=str(toy_encoder_folder), max_steps=4), evaluate=False)
    plain = tunesmith.embed(TEXTS, model=str(toy_encoder_folder), precision="float32")["vectors"]
    weights = Path("runs/toy/artifact/adapter_model.safetensors")
    learned = load_file(weights)
    save_file({name: 0 * tensor if "lora_B" in name else tensor for name, tensor in learned.items()}, weights)
    still = tunesmith.embed(TEXTS, artifact="runs/toy", precision="float32")["vectors"]
    numpy.testing.assert_allclose(still, plain, rtol=0, atol=1e-6)


def test_a_head_beside_the_body_leaves_its_vectors(
    toy_task: ToyTask, toy_encoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tunesmith.train(toy_task(model=str(toy_encoder_folder), method={"name": "features"}), evaluate=False)
    told = tunesmith.embed(TEXTS, artifact="runs/toy", precision="float32")
    plain = tunesmith.embed(TEXTS, model=str(toy_encoder_folder), precision="float32")
    numpy.testing.assert_allclose(told["vectors"], plain["vectors"], rtol=0, atol=1e-6)
    assert "changed nothing below its head" in capsys.readouterr().err


def test_what_forgetting_compares_are_these_vectors(toy_encoder_folder: Path) -> None:
    from tunesmith.evaluation import forgetting

    body = open_body(str(toy_encoder_folder), None, None, None, "float32")
    texts = forgetting._column("general_text.jsonl", "text")
    told = tunesmith.embed(texts, model=str(toy_encoder_folder), precision="float32", normalize=False)
    found = embedded(body.model.prepared, body.model.loaded.tokenizer)
    torch.testing.assert_close(found, torch.tensor(told["vectors"]), rtol=0, atol=1e-6)
    assert _attachment.attached(body.model.loaded.model) is None


def test_files_hold_the_vectors_in_order(folder: Folder, tmp_path: Path) -> None:
    place = str(folder("bert"))
    wanted = tunesmith.embed(TEXTS, model=place)["vectors"]
    outputs = [tmp_path / "new" / f"vectors{suffix}" for suffix in (".npy", ".safetensors", ".jsonl")]
    for output in outputs:
        told = tunesmith.embed(TEXTS, model=place, output=output)
        assert told["output"] == str(output)
    matrix, tensors, lines = outputs
    numpy.testing.assert_array_equal(numpy.load(matrix, allow_pickle=False), wanted)
    with safe_open(tensors, framework="np") as file:
        numpy.testing.assert_array_equal(file.get_tensor("vectors"), wanted)
        assert (file.metadata()["model"], file.metadata()["pooling"]) == (place, "mean")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    numpy.testing.assert_array_equal(numpy.array([row["vector"] for row in rows], dtype=numpy.float32), wanted)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in outputs)


def test_an_output_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npy").mkdir()
    for output, told in (
        ("vectors.csv", r"got the suffix '\.csv'; expected one of \.npy, \.safetensors, \.jsonl"),
        (tmp_path / "folder.npy", r"is a folder; expected a file"),
        (tmp_path / "file" / "vectors.npy", r"cannot be written .*; choose another --output"),
    ):
        with pytest.raises(Mistake, match=told) as caught:
            tunesmith.embed("dull", model="no such model", output=output)
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)  # root, who may run this, is refused nowhere
    with pytest.raises(Mistake, match=r"vectors\.npy: cannot be written \(permission denied\)"):
        tunesmith.embed("dull", model="no such model", output="vectors.npy")


def test_texts_that_are_none_are_refused() -> None:
    for texts, told in (([], "got no text"), (["dull", " "], "text 2 of 2 is empty"), ("", "text 1 of 1 is empty")):
        with pytest.raises(Mistake, match=told):
            tunesmith.embed(texts, model="no such model")
    with pytest.raises(Mistake, match="got --model and --artifact"):
        tunesmith.embed("dull", model="a", artifact="b")


def test_what_is_no_vector_is_never_handed_out(
    folder: Folder, toy_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder("llama")
    tokenizer = copy.deepcopy(toy_tokenizer)
    tokenizer.backend_tokenizer.normalizer = Replace("dull", "")
    tokenizer.save_pretrained(place)
    with pytest.raises(Mistake, match="text 2 of 5 has no tokens"):
        tunesmith.embed(TEXTS, model=str(place))
    toy_tokenizer.save_pretrained(place)
    made = pooling.embeddings
    monkeypatch.setattr(pooling, "embeddings", lambda *given, **keys: made(*given, **keys) / 0)
    with pytest.raises(Mistake, match=r"not finite.*--precision float32"):
        tunesmith.embed(TEXTS, model=str(place))


def test_a_file_of_texts_is_a_line_each_or_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, rows = tmp_path / "texts.txt", tmp_path / "rows.jsonl"
    plain.write_text("one\r\ntwo\n\n")
    assert read_texts(plain) == ["one", "two"]
    rows.write_text("".join(json.dumps({"id": n, "review": text}) + "\n" for n, text in enumerate(TEXTS)))
    assert read_texts(rows) == read_texts(rows, "review") == TEXTS
    assert "input from review" in capsys.readouterr().err
    for file, column, told in (
        (rows, "revue", "no column 'revue' .*did you mean 'review'"),
        (plain, "review", "plain text has no columns"),
        (tmp_path / "none.txt", None, r"none\.txt: no such file"),
    ):
        with pytest.raises(Mistake, match=told):
            read_texts(file, column)
    with pytest.raises(Mistake, match="stdin:2: an empty line"):
        texts_of_lines("one\n\ntwo\n", "stdin")
    assert texts_of_lines("\n \n", "stdin") == []


@pytest.mark.network
@pytest.mark.model
@pytest.mark.usefixtures("online")
def test_texts_that_mean_the_same_lie_near() -> None:
    told = tunesmith.embed(["a cat sits on the mat", "a kitten rests on a rug", "the stock market fell"])
    cosines = told["cosine_similarities"]
    assert (told["model"], told["dimension"], told["max_length"]) == ("all-minilm-l6-v2", 384, 256)
    # 0.661, 0.073 and 0.085 measured.
    assert cosines[0][1] > 0.6
    assert max(cosines[0][2], cosines[1][2]) < 0.15

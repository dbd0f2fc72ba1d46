from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _survey, important
from tunesmith.methods.important import ChosenRows, Config

IDS = torch.tensor([[5, 81, 2, 300]])


class Told:
    """A look that was told what it sees."""

    seed = 0

    def __init__(
        self,
        gradients: Sequence[Mapping[str, Tensor]] = (),
        features: Mapping[str, Tensor] | None = None,
        answers: Sequence[str] = (),
    ) -> None:
        self.seen, self.hidden, self.answers = gradients, features or {}, answers

    def gradients(self, names: Sequence[str], note: Callable[[str, Tensor], None], rows: int) -> None:
        for one in self.seen:
            for name in names:
                note(name, one[name])

    def features(self, places: Sequence[str], rows: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        return {place: self.hidden[place] for place in places}, self.answers


def noise(model: nn.Module, scale: float = 1e-3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: scale * torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def test_the_equation_by_hand() -> None:
    """W = [[1, 2], [3, 4], [5, 6]], row 1 changed by [10, 20]: x = [1, 1] gives [3, 7 + 30, 11]."""
    base = nn.Linear(2, 3, bias=False)
    base.weight.data = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    layer = ChosenRows(base, [1])
    layer.delta.data = torch.tensor([[10.0, 20]])
    assert layer(torch.ones(2)).tolist() == [3, 37, 11]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_rows_with_the_largest_squared_gradients_are_chosen(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    path = "model.layers.1.mlp.up_proj" if kind == "llama" else "transformer.h.1.mlp.c_fc"
    across = 1 if kind == "gpt2" else 0  # Conv1D keeps its matrix the other way round
    first, second = noise(model), noise(model)
    first[f"{path}.weight"].select(across, 7).fill_(1.0)
    second[f"{path}.weight"].select(across, 3).fill_(-2.0)  # a square has no sign
    second[f"{path}.weight"].select(across, 4).fill_(1.5)
    layer = model.get_submodule(path)
    config = Config(share=3 * 32 / sum(p.numel() for p in linear(model)))
    found = important.survey(model, config, Told([first, second]))
    assert found.rows == {path: "3-4,7"}
    place = path.rpartition(".mlp")[0]
    assert found.importance[place] > 0.99
    assert sum(found.importance.values()) == pytest.approx(1)
    important.attach(model, found)
    assert _attachment.trainable(model).count == 3 * 32
    assert isinstance(model.get_submodule(path), ChosenRows)
    assert model.get_submodule(path).base is layer


def linear(model: nn.Module) -> list[nn.Parameter]:
    return [
        p
        for name, p in model.named_parameters()
        if name.endswith(("_proj.weight", "c_fc.weight", "c_attn.weight")) and p.dim() == 2
    ]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 1.0])
def test_no_more_is_trained_than_the_share(share: float, toy_llama: Any) -> None:
    total = sum(p.numel() for p in linear(toy_llama))
    important.attach(toy_llama, important.survey(toy_llama, Config(share=share), Told([noise(toy_llama)])))
    trained = _attachment.trainable(toy_llama).count
    assert max(32, share * total - 64) <= trained <= max(32, share * total)  # rows are 32 or 64 wide; one at least


def test_only_targets_are_ranked(toy_llama: Any) -> None:
    config = Config(share=0.5, target_modules=["q_proj"])
    found = important.survey(toy_llama, config, Told([noise(toy_llama)]))
    assert {path.rpartition(".")[2] for path in found.rows} == {"q_proj"}


def test_a_forest_finds_the_block_that_tells_the_answers_apart(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", num_hidden_layers=3)
    generator = torch.Generator().manual_seed(0)
    answers = ["yes", "no"] * 20
    hidden = {f"model.layers.{n}": torch.randn(40, 32, generator=generator) for n in range(3)}
    hidden["model.layers.1"][::2, :8] += 3.0
    config, look = Config(by="random_forest", share=0.01), Told(features=hidden, answers=answers)
    found = important.survey(model, config, look)
    assert max(found.importance, key=lambda place: found.importance[place]) == "model.layers.1"
    assert sum(found.importance.values()) == pytest.approx(1)
    assert len(found.rows) == 7
    assert all(path.startswith("model.layers.1.") for path in found.rows)
    assert found.rows["model.layers.1.mlp.up_proj"] == "0-63"
    assert (
        important.survey(model, Config(by="random_forest", share=0.01), Told(features=hidden, answers=answers)) == found
    )


@pytest.mark.parametrize("answers", [["a"] * 8, list("abcdefgh")])
def test_a_forest_without_labels_is_a_mistake(answers: list[str], toy_llama: Any) -> None:
    hidden = {f"model.layers.{n}": torch.randn(8, 32) for n in range(2)}
    with pytest.raises(Mistake, match=r"random_forest needs answers that come again; .* --method\.by gradient"):
        important.survey(toy_llama, Config(by="random_forest"), Told(features=hidden, answers=answers))


def test_before_the_data_were_looked_at_nothing_can_be_attached(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match="has not looked at the data yet"):
        important.attach(toy_llama, Config())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"model.layers.9.mlp.up_proj": "1"}, "has no layer model.layers.9"),
        ({"model.norm": "1"}, "model.norm is no linear layer"),
        ({"model.layers.0.mlp.up_proj": "3,64"}, "has 64 rows; got 64"),
    ],
)
def test_rows_of_another_model_are_a_mistake(rows: dict[str, str], told: str, toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=told):
        important.attach(toy_llama, Config(rows=rows))
    assert _attachment.attached(toy_llama) is None


def test_a_tied_head_cannot_take_its_rows_in(toy_llama: Any) -> None:
    important.attach(toy_llama, Config(rows={"lm_head": "2-5"}))
    with pytest.raises(Mistake, match="lm_head shares its weight with another layer"):
        important.merge(toy_llama)


@pytest.mark.parametrize(
    ("numbers", "text"), [([3], "3"), ([1, 2], "1-2"), ([0, 1, 2, 7, 9, 10], "0-2,7,9-10"), ([5, 3], "3,5")]
)
def test_numbers_are_written_as_people_write_pages(numbers: list[int], text: str) -> None:
    assert _survey.written(numbers) == text
    assert _survey.read(text) == sorted(numbers)

"""Only the weights that matter most for the task are trained: ranked on the data, the top share freed, the rest fixed.

``by: gradient`` ranks single rows of the linear layers (what feeds one output) by their diagonal Fisher information,
the mean squared gradient over training rows (Sung et al. 2021, FISH masks, arXiv 2111.09839, eq. 4). ``by:
random_forest`` ranks whole blocks: a random forest (scikit-learn) predicts the answer from the hidden states of all
blocks, and a block is as important as its features are to the forest (Breiman 2001, impurity decrease).

For the chosen rows a change is trained beside the frozen weights, ``y = W x + Δ x`` with `Δ` zero at the start and in
every row that was not chosen (as in diff pruning, arXiv 2012.07463, eq. 1): only the chosen rows of it exist, so the
gradient, the optimizer's state and the artifact are only theirs, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _blocks, _survey, _targets, _wrappers

FAMILY = "selective"
GOOD_FOR = "a small artifact of weights the data chose, and a picture of which they are"
LEARNING_RATE = 2e-4
MERGEABLE = True
MIXABLE = False
PEFT_TYPE: str | None = None
WHOLE = False

_NAME = "important"
_REMEDY = "load it on the base it was made for"
_ROWS = {"gradient": 32, "random_forest": 256}
"""Training rows looked at: a gradient costs as much as a row's training, features only its reading."""
_TREES = 300
_COMPONENTS = 8
"""Principal components of a block's hidden states that the forest sees: as many for each block, and few enough."""


class Config(Section):
    """The keys of ``method: {name: important}``."""

    by: Literal["gradient", "random_forest"] = Field(
        "gradient", description="rank rows of weights by squared gradients, or blocks by a forest over their features"
    )
    share: float = Field(0.02, gt=0, le=1, description="share of the targets' weights that is trained, the top of them")
    survey_rows: int | None = Field(
        None, ge=4, description="training rows that are looked at; default: 32 for gradient, 256 for random_forest"
    )
    target_modules: str | list[str] = Field(
        _targets.ALL_LINEAR, description="all-linear, a list of layer names, or a regular expression"
    )
    rows: dict[str, str] = Field(default_factory=dict, description="the chosen rows of each layer; found on the data")
    importance: dict[str, float] = Field(
        default_factory=dict, description="each block's share of the importance; found on the data"
    )


class ChosenRows(_wrappers.Wrapper):
    """A linear layer `base` with a change to some of its outputs, computed and added in float32.

    `rows [chosen]` are the outputs, `delta [chosen, in]` a float32 parameter, zero at the start. The result comes in
    the type of the base's own.
    """

    rows: Tensor

    def __init__(self, base: nn.Module, rows: Sequence[int]) -> None:
        super().__init__(base)
        device, (width, _) = self.weight.device, _wrappers.widths(base)
        self.register_buffer("rows", torch.tensor(rows, device=device), persistent=False)
        self.delta = nn.Parameter(torch.zeros(len(rows), width, dtype=torch.float32, device=device))

    @property
    def bias(self) -> Tensor | None:
        """The base's bias, for code that asks a linear layer for it."""
        bias: Tensor | None = self.base.bias  # type: ignore[assignment]  # nn.Module types it Tensor | Module
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [..., in]` to `[..., out]`."""
        output: Tensor = self.base(x)
        change = functional.linear(x.to(self.delta.dtype), self.delta)
        return output.to(change.dtype).index_add(-1, self.rows, change).to(output.dtype)

    def learned(self) -> dict[str, Tensor]:
        """The change, by the name of the parameter that it is to."""
        return {"weight": self.delta}

    def merged(self) -> dict[str, Tensor]:
        """The weight with the change in it."""
        weight = _wrappers.matrix(self.base).index_add(0, self.rows, self.delta)
        return {"weight": _wrappers.oriented(self.base, weight)}


def survey(model: nn.Module, config: Config, look: _survey.Look) -> Config:
    """The config with `rows` and `importance` filled in, found with the plain `model` on the rows that `look` has.

    Raises Mistake when a target matches nothing, when the forest has no labels to learn, or gradients are wanted of
    quantized weights.
    """
    found = _targets.find(model, config.target_modules)
    if config.by == "gradient":
        rows, importance = _by_gradient(model, found, config, look)
    else:
        rows, importance = _by_forest(model, found, config, look)
    told = {"rows": {path: _survey.written(chosen) for path, chosen in rows.items()}, "importance": importance}
    return config.model_copy(update=told)


def attach(model: nn.Module, config: Config) -> None:
    """Freeze the model and put a `ChosenRows` around every layer that has chosen rows.

    Raises Mistake when nothing has been chosen yet (see `survey`), when a target matches nothing, and when what was
    chosen is not in this model.
    """
    if not config.rows:
        _targets.find(model, config.target_modules)  # a target that matches nothing is the nearer mistake
        raise Mistake("method: important has not looked at the data yet; expected rows; train it from a task file")
    _attachment.refuse_stacking(model, _NAME)
    chosen = {path: (_layer(model, path), _survey.read(rows)) for path, rows in config.rows.items()}
    for path, (layer, rows) in chosen.items():
        if max(rows) >= _outputs(layer):
            raise Mistake(f"method.rows: {path} has {_outputs(layer)} rows; got {max(rows)}; {_REMEDY}")
    _wrappers.lay_on(model, _NAME, config, {path: ChosenRows(*pair) for path, pair in chosen.items()})


def detach(model: nn.Module) -> None:
    """Take the changes away: the base's own modules are back in their places."""
    _wrappers.take_away(model, _NAME)


def merge(model: nn.Module) -> None:
    """Add every change to its layer's own weight, in float32, and store it in the weight's own type.

    Raises Mistake for a quantized layer, and for a weight that two layers share.
    """
    _wrappers.merge(model, _NAME)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The changes `[chosen, in]` by the name of the parameter that they are to; which rows, the config says."""
    _attachment.expect(model, _NAME)
    found = list(_wrappers.wrappers(model))
    return {f"{path}.{name}": delta.detach() for path, layer in found for name, delta in layer.learned().items()}


def restore(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `state` gave back; raises Mistake unless names and shapes fit exactly."""
    _attachment.copy_into(state(model), weights, _NAME)


def scaled(model: nn.Module, weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The changes `factor` times as large."""
    return {name: factor * weight for name, weight in weights.items()}


Ranked = tuple[dict[str, list[int]], dict[str, float]]
"""The chosen rows by layer, and each block's share of the importance."""


def _by_gradient(model: nn.Module, found: Mapping[str, nn.Module], config: Config, look: _survey.Look) -> Ranked:
    """Rows by their mean squared gradient a weight, so that a long row must be worth its length."""
    scores = {path: torch.zeros(_outputs(layer), dtype=torch.float64, device="cpu") for path, layer in found.items()}
    path_of = {f"{path}.weight": path for path in found}
    if bits := [path for path in found if not model.get_parameter(f"{path}.weight").is_floating_point()]:
        raise _attachment.Unsuited(
            f"method.by: gradient ranks weights that are not quantized, as {bits[0]} is; "
            "type --method.by random_forest, or leave quantization out"
        )

    def note(name: str, gradient: Tensor) -> None:
        path = path_of[name]
        rows = gradient.T if isinstance(found[path], Conv1D) else gradient
        scores[path] += rows.float().square().mean(dim=1).double().cpu()

    look.gradients(list(path_of), note, config.survey_rows or _ROWS[config.by])
    widths = {path: _weights(layer) // _outputs(layer) for path, layer in found.items()}
    ranked = sorted(
        ((score, path, row) for path, one in scores.items() for row, score in enumerate(one.tolist())), reverse=True
    )
    left = config.share * sum(map(_weights, found.values()))
    rows: dict[str, list[int]] = {}
    for _, path, row in ranked:
        if not rows or widths[path] <= left:
            rows.setdefault(path, []).append(row)
            left -= widths[path]
    totals = {path: float(one.sum()) * widths[path] for path, one in scores.items()}
    return {path: rows[path] for path in found if path in rows}, _a_block(model, totals)


def _by_forest(model: nn.Module, found: Mapping[str, nn.Module], config: Config, look: _survey.Look) -> Ranked:
    """Whole blocks by the forest's use of their features, the first of them always, more while the share allows."""
    places = [place for place in _blocks.blocks(model) if any(path.startswith(f"{place}.") for path in found)]
    features, answers = look.features(places, config.survey_rows or _ROWS[config.by])
    kinds = len(set(answers))
    if not 2 <= kinds <= len(answers) // 2:
        raise Mistake(
            f"method.by: random_forest needs answers that come again; got {kinds} different ones in {len(answers)} "
            "rows; type --method.by gradient, or raise --method.survey_rows"
        )
    importance = _forest([features[place] for place in places], answers, look.seed)
    shares = dict(zip(places, importance, strict=True))
    left = config.share * sum(map(_weights, found.values()))
    rows: dict[str, list[int]] = {}
    for place in sorted(places, key=lambda place: -shares[place]):
        inside = {path: layer for path, layer in found.items() if path.startswith(f"{place}.")}
        size = sum(map(_weights, inside.values()))
        if rows and size > left:
            break
        rows |= {path: list(range(_outputs(layer))) for path, layer in inside.items()}
        left -= size
    return {path: rows[path] for path in found if path in rows}, shares


def _forest(features: Sequence[Tensor], answers: Sequence[str], seed: int) -> list[float]:
    """How much of a random forest's impurity decrease is due to each of the feature matrices `[rows, hidden]`."""
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.preprocessing import StandardScaler

    count = min(_COMPONENTS, len(answers) - 1, *(matrix.shape[1] for matrix in features))
    reduced = [
        PCA(count, svd_solver="full").fit_transform(StandardScaler().fit_transform(matrix.double().numpy()))
        for matrix in features
    ]
    forest = RandomForestClassifier(_TREES, random_state=seed, n_jobs=1).fit(np.hstack(reduced), answers)
    return [float(part.sum()) for part in np.split(forest.feature_importances_, len(features))]


def _a_block(model: nn.Module, totals: Mapping[str, float]) -> dict[str, float]:
    """What layers have, summed for each block and divided by the whole; a layer outside all blocks is its own."""
    summed = dict.fromkeys(_blocks.blocks(model), 0.0)
    for path, total in totals.items():
        place = next((place for place in summed if path.startswith(f"{place}.")), path)
        summed[place] = summed.get(place, 0.0) + total
    whole = sum(summed.values()) or 1.0
    return {place: total / whole for place, total in summed.items()}


def _layer(model: nn.Module, path: str) -> nn.Module:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise Mistake(f"method.rows: this model has no layer {path}; {_REMEDY}") from None
    if not isinstance(layer, _targets.LINEAR):
        raise Mistake(f"method.rows: {path} is no linear layer in this model; {_REMEDY}")
    return layer


def _outputs(layer: nn.Module) -> int:
    return _wrappers.widths(layer)[1]


def _weights(layer: nn.Module) -> int:
    width_in, width_out = _wrappers.widths(layer)
    return width_in * width_out

"""What a sweep searches: ranges and choices of the task file's own keys, or those that suit the method."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Project, resolve
from tunesmith.core.errors import Mistake, nearest
from tunesmith.methods._rate import suited
from tunesmith.models.load import kind_named

if TYPE_CHECKING:
    from optuna import Trial

SEARCHABLE = (
    "optimizer",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "weight_decay",
    "momentum",
    "max_grad_norm",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
"""Keys of the task file that may differ from trial to trial, beside those of the method."""
USUAL: dict[str, list[Any]] = {"r": [4, 8, 16, 32], "num_virtual_tokens": [8, 16, 32, 64], "dropout": [0.0, 0.05, 0.1]}
"""What is tried of a method's keys where the task file does not say."""
WIDELY = 10.0
"""A range whose ends are this many times apart is searched by its logarithm."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A key and what it may be: one of `choices`, or a number from `low` to `high`."""

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @property
    def is_logarithmic(self) -> bool:
        """Whether its range spans so much that ratios count, not differences."""
        return not self.choices and self.low > 0 and self.high / self.low >= WIDELY

    def holds(self, value: Any) -> bool:
        """Whether it may be this value."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def suggest(self, trial: Trial) -> Any:
        """A value for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.is_logarithmic)
        return trial.suggest_float(self.key, self.low, self.high, log=self.is_logarithmic)

    def as_dict(self) -> dict[str, Any]:
        """For `sweep.json` and its picture."""
        span = {"choices": list(self.choices)} if self.choices else {"low": self.low, "high": self.high}
        return {"key": self.key, **span, "logarithmic": self.is_logarithmic}


def space(project: Project) -> tuple[Dimension, ...]:
    """What `project.sweep` asks to be searched. Raises Mistake for what cannot differ, and Mistakes for bad values."""
    asked = project.sweep or usual(project)
    known = [*SEARCHABLE, *(f"method.{name}" for name in project.method.module.Config.model_fields)]
    found = []
    for key, values in asked.items():
        if key not in known:
            raise Mistake(f"sweep: {key} cannot be searched; {nearest(key, known)}")
        found.append(_dimension(key, values))
        for value in found[-1].choices or (found[-1].low, found[-1].high):
            tried(project, {key: value})
    return tuple(found)


def usual(project: Project) -> dict[str, list[Any]]:
    """The learning rate around the method's own, the epochs, and the size of what is trained."""
    rate, own = _own_rate(project), project.method.module.Config.model_fields
    sizes = {f"method.{name}": values for name, values in USUAL.items() if name in own}
    return {"learning_rate": [rate / 10, rate * 10], "num_train_epochs": [1.0, 2.0, 3.0], **sizes}


def tried(project: Project, values: Mapping[str, Any]) -> Project:
    """The project with a trial's values. Raises Mistakes where one of them cannot be."""
    return resolve({**project.as_dict(), "sweep": {}}, overrides=values)


def usual_values(project: Project, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """What the task file says of the keys that are searched, as far as it lies within: the trial to begin with."""
    told = project.as_dict() | {"learning_rate": project.learning_rate or _own_rate(project)}
    found: dict[str, Any] = {}
    for one in dimensions:
        outer, _, inner = one.key.partition(".")
        value = told[outer][inner] if inner else told[outer]
        if one.holds(value):
            found[one.key] = value
    return found


def _own_rate(project: Project) -> float:
    return suited(project.method.module, kind_named(project.model))


def _dimension(key: str, given: list[Any]) -> Dimension:
    values = [_plain(value) for value in given]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) == 2 and len(numbers) == 2:
        low, high = sorted(numbers)
        if low < high:
            return Dimension(key, low=low, high=high)
    if not values:
        raise Mistake(f"sweep: {key} has nothing to try; expected two numbers, a range, or a list of choices")
    return Dimension(key, tuple(dict.fromkeys(values)))


def _plain(value: Any) -> Any:
    """YAML takes 1e-5, which has no dot, for text."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value

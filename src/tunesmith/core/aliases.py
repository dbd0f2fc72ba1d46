"""What peers call the keys of a task file, and what their values are in ours."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from tunesmith.core.origin import Keys

ALIASES: dict[Keys, Keys] = {
    ("model_name_or_path",): ("model",),
    ("base_model",): ("model",),
    ("dataset",): ("data", "train"),
    ("val_size",): ("data", "validation"),
    ("val_set_size",): ("data", "validation"),
    ("cutoff_len",): ("max_length",),
    ("sequence_len",): ("max_length",),
    ("max_seq_length",): ("max_length",),
    ("model_max_length",): ("max_length",),
    ("excess_length_strategy",): ("too_long",),
    ("finetuning_type",): ("method", "name"),
    ("tuner_type",): ("method", "name"),
    ("lora_r",): ("method", "r"),
    ("lora_rank",): ("method", "r"),
    ("lora_alpha",): ("method", "alpha"),
    ("lora_dropout",): ("method", "dropout"),
    ("lora_target_modules",): ("method", "target_modules"),
    ("target_modules",): ("method", "target_modules"),
    ("method", "lora_r"): ("method", "r"),
    ("method", "lora_alpha"): ("method", "alpha"),
    ("method", "lora_dropout"): ("method", "dropout"),
    ("batch_size",): ("per_device_train_batch_size",),
    ("micro_batch_size",): ("per_device_train_batch_size",),
    ("num_epochs",): ("num_train_epochs",),
    ("epochs",): ("num_train_epochs",),
    ("lr",): ("learning_rate",),
    ("lr_scheduler",): ("lr_scheduler_type",),
    ("scheduler",): ("lr_scheduler_type",),
    ("optim",): ("optimizer",),
    ("out_dir",): ("output_dir",),
    ("load_in_4bit",): ("quantization",),
    ("load_in_8bit",): ("quantization",),
    ("quantization_bit",): ("quantization",),
}
"""Peers' keys (transformers, LLaMA-Factory, Axolotl, ms-swift, LitGPT, Soup) and ours for the same thing."""

MEANINGS: Mapping[Keys, Mapping[Hashable, Any]] = {
    ("load_in_4bit",): {True: "nf4", False: None},
    ("load_in_8bit",): {True: "int8", False: None},
    ("quantization_bit",): {4: "nf4", 8: "int8"},
}
"""Of peers' keys whose values are other words than ours: what each value is here."""


def meaning(keys: Keys, value: Any) -> Any:
    """A value given under a peer's key as ours; one that the peer does not know either comes back as it is."""
    known = MEANINGS.get(keys, {})
    return next((ours for theirs, ours in known.items() if value in (theirs, str(theirs).lower())), value)

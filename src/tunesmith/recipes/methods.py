"""Methods: what there is to choose from, what each is good for, and how much of a model it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names, summary
from tunesmith.methods._rate import suited
from tunesmith.models.catalog import catalog
from tunesmith.models.folder import read_config
from tunesmith.models.load import kind_of
from tunesmith.models.source import check_name, find

ORDER = ("full", "gradual", "selective", "reparameterized", "additive", "feature-based", "other")
"""The families, in the order in which they are told."""


def methods(model: str | None = None) -> list[dict[str, Any]]:
    """Every method: its line, its family, what it is good for, and the numbers it trains of `model`, with its defaults.

    `model` is a name as `load` takes it, or the catalogue's first. The weights are not read: the model is laid out
    without memory, and each method attached to it. `trained` and `share` are None where the model is not on this
    machine or the method does not fit it (`reason` says why). Raises Mistake for a name that can be no model.
    """
    name = model or next(iter(catalog()))
    check_name(name)
    folder = find(name)
    kind = kind_of(read_config(folder)) if folder else "decoder"
    found = [_described(method, kind) for method in names("methods")]
    for one in found:
        if folder is None:
            one["reason"] = f"{name} is not on this machine; type `tunesmith models pull {name}`"
        else:
            one |= _counted(one["name"], folder)
    return sorted(found, key=lambda one: (ORDER.index(one["family"]), one["name"]))


def _described(name: str, kind: str) -> dict[str, Any]:
    module = choice("methods", name)
    return {
        "name": name,
        "line": summary("methods", name),
        "family": module.FAMILY,
        "good_for": module.GOOD_FOR,
        "learning_rate": suited(module, kind),
        "mergeable": module.MERGEABLE,
        "mixable": module.MIXABLE,
        "peft_type": module.PEFT_TYPE,
        "model": None,
        "trained": None,
        "total": None,
        "share": None,
        "reason": "",
    }


class _Blind:
    """A look that sees nothing: how many weights a method chooses does not depend on which."""

    seed = 0

    def gradients(self, names: Sequence[str], note: Any, rows: int) -> None:
        """None of any parameter."""


def _counted(name: str, folder: Path) -> dict[str, Any]:
    import torch

    from tunesmith.methods._attachment import trainable
    from tunesmith.models.load import lay_out, load_tokenizer

    chosen = choose("methods", name)
    module, config = chosen.module, chosen.config
    try:
        with torch.device("meta"):
            model = lay_out(folder)
            total = sum(parameter.numel() for parameter in model.parameters())
            if hasattr(module, "resolve"):
                config = module.resolve(config, load_tokenizer(str(folder)), "Do what is asked.")
            if hasattr(module, "survey"):
                config = module.survey(model, config, _Blind())
            module.attach(model, config)
    except Mistake as mistake:
        return {"model": str(folder), "reason": str(mistake)}
    trained = trainable(model).count
    return {"model": str(folder), "trained": trained, "total": total, "share": trained / total}

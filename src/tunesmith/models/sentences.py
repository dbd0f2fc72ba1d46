"""How a model made for sentence vectors wants them made: sentence-transformers' files beside its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunesmith.core.config import Pooling
from tunesmith.core.errors import Mistake

POOLING_FOLDER = "1_Pooling"
"""The one subfolder of a model that holds no other form of its weights."""
_SETTINGS = f"{POOLING_FOLDER}/config.json"
_OURS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first", "lasttoken": "last"}
_UNDERSTOOD = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class Sentences:
    """What a model's own files say, None where they are silent.

    `modes` are the ways of pooling by sentence-transformers' names, of which several are laid side by side;
    `max_length` is in tokens; `left_out` are the layers behind the pooling that only sentence-transformers applies.
    """

    modes: tuple[str, ...] | None = None
    max_length: int | None = None
    left_out: tuple[str, ...] = ()

    def pooling(self, name: str) -> Pooling | None:
        """The model's own way of pooling. Raises Mistake for one that we have not; `name` is the model's."""
        if self.modes is None:
            return None
        ours = _OURS.get(self.modes[0]) if len(self.modes) == 1 else None
        if ours is None:
            raise Mistake(
                f"model {name}: its {_SETTINGS} asks for {' and '.join(self.modes) or 'nothing'}; "
                "expected mean_tokens, cls_token or lasttoken; choose another with --pooling"
            )
        return cast(Pooling, ours)


def sentences(folder: Path) -> Sentences:
    """What the files in a model's folder say of its sentence vectors. Raises Mistake where one is not JSON."""
    pooling, length = _read(folder / _SETTINGS), _read(folder / "sentence_bert_config.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in _read(folder / "modules.json") or ()]
    return Sentences(
        None if pooling is None else _modes(pooling),
        (length or {}).get("max_seq_length"),
        tuple(kind for kind in kinds if kind not in _UNDERSTOOD),
    )


def _modes(settings: dict[str, Any]) -> tuple[str, ...]:
    """Flags (``pooling_mode_cls_token: true``), or one name (``pooling_mode: cls``), as newer versions write it."""
    if isinstance(named := settings.get("pooling_mode"), str):
        return (named,)
    return tuple(key.removeprefix("pooling_mode_") for key, on in settings.items() if on is True and "_mode_" in key)


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mistake(f"{path}: not JSON ({error}); expected sentence-transformers' file; fetch it again") from error

"""What a cell of a label column says: one label or several, by name or by number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.core.errors import Mistake, nearest
from tunesmith.data._row import BadField

_INTEGER = re.compile(r"-?\d+(\.0+)?")
_SHOWN = 20


class LabelReader:
    """Turns cells into labels of the list, and remembers which translations it made.

    `labels` is the list in its order; empty means every value is a label. `values` says in so many words what a cell
    means, {"1": "negative"}, and goes before everything else. `several` lets a cell hold any number of labels, or none.
    """

    def __init__(
        self, labels: Sequence[str] = (), values: Mapping[Any, str] | None = None, several: bool = False
    ) -> None:
        self.several = several
        self.labels = tuple(str(label) for label in labels)
        self.values = {_plain(key): str(label) for key, label in (values or {}).items()}
        self.translated: Counter[str] = Counter()
        self._folded = {label.casefold(): label for label in self.labels}
        self._numbered = any(_INTEGER.fullmatch(label) for label in self.labels)
        self._known: dict[str, str] = {}
        wrong = [label for label in self.values.values() if self.labels and label not in self.labels]
        if wrong:
            raise Mistake(f"label_values: '{wrong[0]}' is not a label; {nearest(wrong[0], self.labels)}")

    def read(self, value: Any, column: str) -> tuple[str, ...]:
        """The labels of a cell: one, a list, or `a|b`. Raises BadField on one too many or not in the list."""
        if isinstance(value, list | tuple):
            parts = list(value)
        elif self.several and isinstance(value, str) and value.strip() not in self.labels:
            parts = [part for part in value.split("|") if part.strip()]
        else:
            parts = [] if self.several and value is None else [value]
        found = tuple(dict.fromkeys(self._one(part, column) for part in parts))
        if not self.several and len(found) != 1:
            got = f"{len(found)} labels ({', '.join(found)})" if found else "no label"
            raise BadField(column, f"{got}; expected one, or the task multi_label", "label" if found else "empty")
        return found

    def _one(self, value: Any, column: str) -> str:
        text = _plain(value)
        label = self._known.get(text)
        if label is None:
            label = self._known[text] = self._look_up(text, column)
        if label != text:
            self.translated[f"{text} → {label}"] += 1
        return label

    def _look_up(self, text: str, column: str) -> str:
        if text in self.values:
            return self.values[text]
        if not text:
            raise BadField(column, "no label; expected one", "empty")
        if not self.labels or text in self.labels:
            return text
        if text.casefold() in self._folded:
            return self._folded[text.casefold()]
        if not self._numbered and text.isdecimal() and int(text) < len(self.labels):
            return self.labels[int(text)]
        raise BadField(column, self._unknown(text), "label")

    def _unknown(self, text: str) -> str:
        listed = ", ".join(self.labels[:_SHOWN]) + (" …" if len(self.labels) > _SHOWN else "")
        if _INTEGER.fullmatch(text) and not self._numbered:
            numbers = ", ".join(f"{number} = {label}" for number, label in enumerate(self.labels[:_SHOWN]))
            example = f"`label_values: {{{text}: {self.labels[0]}, …}}`"
            return f"label {text} is not in the list ({numbers}); write {example} for another numbering"
        if "|" in text:
            return f"'{text}' is not in the list ({listed}); several labels a row need the task multi_label"
        hint = nearest(text, self.labels)
        advice = hint if hint.startswith("did") else "correct it, or add it to `labels:`"
        return f"label '{text}' is not in the list ({listed}); {advice}"


def _plain(value: Any) -> str:
    """A cell as the text it is compared by: 1.0 (how pandas writes 1 beside a gap) is 1, and true is 1."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    text = str(value).strip()
    return str(int(float(text))) if _INTEGER.fullmatch(text) else text

"""Models that read rows instead of writing answers: the head a task needs, and what makes rows for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.config import Chosen
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Text
from tunesmith.core.rooms import choice, names
from tunesmith.models.heads import Head

if TYPE_CHECKING:
    from tunesmith.models.load import Loaded
    from tunesmith.prompts.reading import Reader

WHOLE_ROWS = ("sequence", "several")
"""What tasks label that are about whole rows."""


def head_for(name: str, task: Chosen | None, reads: str = "") -> Head:
    """The head that the encoder `name` needs for a task, which for running text is one that `reads` names.

    Raises Mistake for a task that wants text written, and for running text without such a name.
    """
    if task is not None and task.module.RECORD is Text:
        if not reads:
            raise Mistake(
                f"model {name}: got an encoder, which learns running text by telling what is hidden or what comes "
                "next; expected objective mlm or nsp; type --objective mlm"
            )
        return Head(reads)
    if task is None or not hasattr(task.module, "HEAD"):
        readable = ", ".join(one for one in names("tasks") if hasattr(choice("tasks", one), "HEAD"))
        raise Mistake(
            f"model {name}: got an encoder, which reads text and writes none; expected a decoder for "
            f"{task.name if task else 'this'} (see `tunesmith models list`), or one of the tasks {readable}"
        )
    return Head(task.module.HEAD, task.module.choices(task.config))


def reader(loaded: Loaded, kind: str, labels: tuple[str, ...]) -> Reader:
    """What makes rows for a head over a model that is loaded."""
    from tunesmith.models.load import context_length
    from tunesmith.prompts.reading import Reader

    return Reader(loaded.tokenizer, kind, labels, context_length(loaded.model.config))


def whole_rows(loaded: Loaded, method: Chosen, task: Chosen) -> Reader:
    """What makes rows for a method with a head of its own; the model's configuration is told how many labels there are.

    Raises Mistake for a task that is not about labels of whole rows.
    """
    if (kind := getattr(task.module, "HEAD", "")) not in WHOLE_ROWS:
        readable = [name for name in names("tasks") if getattr(choice("tasks", name), "HEAD", "") in WHOLE_ROWS]
        raise Mistake(
            f"method: {method.name} labels whole rows; got the task {task.name}; expected {' or '.join(readable)}; "
            "type --method.name lora"
        )
    config, labels = loaded.model.config, task.module.choices(task.config)
    config.num_labels = len(labels)
    config.problem_type = "multi_label_classification" if kind == "several" else "single_label_classification"
    return reader(loaded, kind, labels)

"""Generate: ask a model or an artifact, once or in a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.config import Precision, Project, choose
from tunesmith.core.records import Chat, Labelled, Message, Text
from tunesmith.evaluation.answers import Answerer, Prompting
from tunesmith.evaluation.reader_answers import ReaderAnswerer
from tunesmith.recipes import _artifacts
from tunesmith.recipes._work import labelled, open_model


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model that answers: `answer` does a task's work on a text, `reply` goes on with a conversation."""

    answerer: Answerer | ReaderAnswerer
    prompting: Prompting

    @property
    def system(self) -> str:
        """The system prompt of the task, "" where it has none."""
        return str(getattr(self.answerer.task.config, "system", ""))

    def answer(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The task's answer to each text; for labels with each label's probability."""
        task = self.answerer.task
        records = [_record(task.module, text) for text in texts]
        answers = self.answerer.told(records, self.prompting)
        return [{"input": text, **answer} for text, answer in zip(texts, answers, strict=True)]

    def reply(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_text: Callable[[str], object] | None = None,
    ) -> str:
        """The assistant's next turn, after the task's system prompt where the conversation has none of its own.

        `on_text` hears the text as it grows, a piece at a time.
        """
        from tunesmith.engine.generation import Sampling

        sampling = Sampling(temperature, top_p, seed)
        if self.system and not any(message.role == "system" for message in messages):
            messages = (Message("system", self.system), *messages)
        return self.answerer.converse(
            messages, self.prompting, max_new_tokens=max_new_tokens, sampling=sampling, on_text=on_text
        )


def speaker(
    *,
    artifact: str | Path | None = None,
    model: str | None = None,
    project: Project | None = None,
    task_name: str | None = None,
    precision: Precision | None = None,
) -> Speaker:
    """Open an artifact (a run's folder, or an adapter), or a plain model, to be talked to.

    `task_name` says which of several tasks an artifact of a mixture is asked for. `precision` is the project's where
    none is given, else ``auto``.

    Raises Mistake when there is no artifact, or it does not fit its base.
    """
    precision = precision or (project.precision if project else "auto")
    if artifact is not None:
        place = _artifacts.find(artifact, task_name)
        _, answerer, prompting = _artifacts.open_artifact(place, project, precision, task_name)
        return Speaker(answerer, prompting)
    task = labelled(project).task if project else choose("tasks", "generation")
    name = model or (project.model if project else "smollm2-135m-instruct")
    opened = open_model(name, precision, task, quantization=project.quantization if project else None)
    return Speaker(Answerer(opened.prepared, opened.template, task), Prompting())


def _record(task: Any, text: str) -> Any:
    """A text as the task's record; where it is asked about a passage, the question stands after a blank line."""
    if task.RECORD is Chat:
        return Chat((Message("user", text),))
    if task.RECORD is Text:
        return Text(text)
    passage, _, question = text.rpartition("\n\n") if getattr(task, "HEAD", "") == "span" else ("", "", text)
    return Labelled(question, context=passage)

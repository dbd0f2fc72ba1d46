"""From a row in our own fields to a record, with a word about everything that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.errors import nearest
from tunesmith.core.records import Chat, Labelled, Message, Text
from tunesmith.data._labels import LabelReader
from tunesmith.data._messages import messages_of
from tunesmith.data._row import BadField
from tunesmith.data._tags import to_bio

Built = Text | Labelled | Chat


@dataclass
class Builder:
    """Builds records of one kind from rows of one file.

    `labels` reads label cells; None means the output is free text. `called` is each field's column, for complaints.
    """

    record: type[Built]
    labels: LabelReader | None = None
    inputs_only: bool = False
    called: Mapping[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def build(self, values: Mapping[str, Any], source: str) -> Built:
        """The record of one row. Raises BadField."""
        if self.record is Chat:
            return Chat(self._messages(values), source)
        if self.record is Text:
            return Text(self._text(values.get("text"), "text"), source)
        if "tokens" in values:
            return self._tagged(values, source)
        as_turns = "messages" in values or values.get("system")
        return self._labelled(self._flat(values) if as_turns else values, source)

    def _labelled(self, values: Mapping[str, Any], source: str) -> Labelled:
        given = self._text(values.get("input"), "input")
        context = self._text(values["context"], "context", required=False) if "context" in values else ""
        outputs = self._outputs(values.get("output"), bool(context))
        several = outputs if len(outputs) > 1 else ()
        return Labelled(given, outputs[0] if outputs else "", several, context, source=source)

    def _outputs(self, value: Any, is_about_context: bool) -> tuple[str, ...]:
        """Every output of a row. None is right for a set of labels, and for a question its passage leaves open."""
        if self.inputs_only and value in (None, "", []):
            return ()
        if self.labels is not None:
            return self.labels.read(value, self._name("output"))
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # as `datasets` keeps SQuAD's answers
            value = value["text"]
        if not isinstance(value, list | tuple):
            return (self._text(value, "output"),)
        if not value and is_about_context:
            self.notes["the passage has no answer to the question: the output is empty"] += 1
            return ()
        texts = tuple(dict.fromkeys(self._text(part, "output", required=False) for part in value))
        filled = tuple(text for text in texts if text)
        return filled or (self._text("", "output"),)

    def _tagged(self, values: Mapping[str, Any], source: str) -> Labelled:
        tokens = self._sequence(values["tokens"], "tokens")
        for number, token in enumerate(tokens, start=1):
            if not token or token.isspace():
                raise BadField(self._name("tokens"), f"token {number} is empty", "empty")
        tags: tuple[str, ...] = ()
        if not (self.inputs_only and values.get("tags") is None):
            tags = self._tags(values.get("tags"))
            if len(tags) != len(tokens):
                raise BadField(self._name("tags"), f"{len(tags)} tags for {len(tokens)} tokens; expected one each")
        return Labelled(" ".join(tokens), tokens=tokens, tags=tags, source=source)

    def _tags(self, value: Any) -> tuple[str, ...]:
        column, reader = self._name("tags"), self.labels
        raw = self._sequence(value, "tags")
        if reader is not None and reader.values:
            raw = tuple(reader.values.get(tag, tag) for tag in raw)
        if any(tag.isdecimal() for tag in raw):
            raise BadField(column, "tags are numbers; write `label_values: {0: O, 1: B-person, …}` to name them")
        tags = to_bio(raw, column)
        if tags != raw:
            self.notes["tags are put into BIO: B- begins every entity, I- goes on with it"] += 1
        if reader is not None and reader.labels:
            for kind in {tag[2:] for tag in tags if tag != "O"} - set(reader.labels):
                listed = f"({', '.join(reader.labels)})"
                raise BadField(column, f"'{kind}' is not in the list {listed}; {nearest(kind, reader.labels)}", "label")
        return tags

    def _sequence(self, value: Any, name: str) -> tuple[str, ...]:
        """A list of strings or numbers, or a text with a blank between them."""
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, list | tuple) or not value:
            raise BadField(self._name(name), f"got {value!r:.40}; expected a list", "malformed" if value else "empty")
        return tuple(self._text(part, name, required=False) for part in value)

    def _messages(self, values: Mapping[str, Any]) -> tuple[Message, ...]:
        turns = self._turns(values)
        system = self._text(values.get("system"), "system", required=False)
        return (Message("system", system), *turns) if system and turns[0].role != "system" else turns

    def _turns(self, values: Mapping[str, Any]) -> tuple[Message, ...]:
        if "messages" in values:
            messages = messages_of(values["messages"], self._name("messages"), self.inputs_only, self.notes)
            for message in messages:
                self._check_characters(message.content, "messages")
            return messages
        messages = (Message("user", self._text(values.get("input"), "input")),)
        answer = values.get("output")
        if self.inputs_only and not answer:
            return messages
        return (*messages, Message("assistant", self._text(answer, "output")))

    def _flat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A conversation of one question and one answer as input and output, the system's words before the question."""
        turns = self._messages(values)
        asked = [turn.content for turn in turns if turn.role in {"system", "user"} and turn.content.strip()]
        answers = [turn.content for turn in turns if turn.role == "assistant"]
        if len(turns) > 3 or len(answers) > 1:
            several = f"{len(turns)} turns; expected one question and one answer, or the task chat"
            raise BadField(self._name("messages"), several)
        return {"input": "\n\n".join(asked), "output": answers[0] if answers else None}

    def _text(self, value: Any, name: str, required: bool = True) -> str:
        if isinstance(value, str):
            text = value
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, int | float):
            text = str(value)
        elif value is None:
            text = ""
        else:
            raise BadField(self._name(name), f"got {value!r:.40}; expected text")
        if required and (not text or text.isspace()):
            raise BadField(self._name(name), "empty or missing; expected text", "empty")
        if not text.isascii():
            self._check_characters(text, name)
        return text

    def _check_characters(self, text: str, name: str) -> None:
        """Half a surrogate pair (an emoji cut in two) is no character: no tokenizer and no file takes it."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            cut = f"half a character ({half}); expected whole ones; cut the text elsewhere"
            raise BadField(self._name(name), cut) from None

    def _name(self, name: str) -> str:
        return self.called.get(name, name)

"""Messages of a record: the instruction first, then what is particular to the row."""

from __future__ import annotations

from tunesmith.core.records import Labelled, Message


def ask(*parts: str) -> tuple[Message, ...]:
    """One user turn of the parts that are not empty, a blank line between them."""
    return (Message("user", "\n\n".join(part for part in parts if part)),)


def answered(prompt: tuple[Message, ...], answer: str) -> tuple[Message, ...]:
    """The prompt with the answer as the assistant's turn."""
    return (*prompt, Message("assistant", answer))


def question(record: Labelled) -> str:
    """A record's context and input as one text."""
    return "\n\n".join(part for part in (record.context, record.input) if part)

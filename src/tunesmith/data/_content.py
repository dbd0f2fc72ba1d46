"""What a record says, as text: what is asked in it, and all of it."""

from __future__ import annotations

from tunesmith.core.records import Chat, Labelled, Record, Text


def question(record: Record) -> str:
    """What the record asks, without the answer: what must not stand on two sides of a split."""
    if isinstance(record, Labelled):
        return f"{record.context}\n{record.input}" if record.context else record.input
    if isinstance(record, Text):
        return record.text
    turns = record.messages if isinstance(record, Chat) else record.prompt
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return "\n".join(turn.content for turn in turns)


def answer(record: Record) -> str:
    """The answer of a record; "" where there is none."""
    if isinstance(record, Labelled):
        return " ".join(record.tags) if record.tags else "|".join(record.outputs) or record.output
    if isinstance(record, Text):
        return ""
    turns = record.messages if isinstance(record, Chat) else record.chosen
    return turns[-1].content if turns and turns[-1].role == "assistant" else ""


def everything(record: Record) -> str:
    """Question and answer as running text; tags are left away."""
    said = record.output if isinstance(record, Labelled) else answer(record)
    return f"{question(record)}\n{said}" if said else question(record)


def folded(text: str) -> str:
    """The text without regard to case and white space: what counts as the same text."""
    return " ".join(text.casefold().split())

"""Conversations of several turns, judged by how well the assistant's turns are expected: perplexity.

Every turn of the assistant is learned, unless the data mark it otherwise. The system prompt is the conversation's own
(its first turn, or a column beside the turns), or else the task's.
"""

from __future__ import annotations

from pydantic import AliasChoices, Field

from tunesmith.core.config import Section
from tunesmith.core.records import Chat, Message, Score
from tunesmith.tasks._judge import judged

METRIC = "perplexity"
METRICS = ("rouge_l",)
RECORD = Chat
FIELDS = {
    "messages": "a list of turns, each with role and content",
    "system": "what the model is told before the conversation, where that is no turn of it",
}
OPTIONAL: tuple[str, ...] = ("system",)
ALIASES = {
    "messages": ("conversations", "conversation", "dialog", "dialogue", "turns", "chat"),
    "system": ("system_prompt", "system_message"),
}


class Config(Section):
    """What stands before every conversation."""

    system: str = Field(
        "",
        description="the system prompt of conversations that have none of their own",
        validation_alias=AliasChoices("system", "instruction"),
    )
    max_new_tokens: int = Field(256, ge=1, description="tokens a reply may have")


def prompt(record: Chat, config: Config) -> tuple[Message, ...]:
    """The conversation up to the user's last turn."""
    return _all_turns(record, config)[: _last_reply(record, config)]


def answer(record: Chat, config: Config) -> str:
    """The assistant's last turn; "" where the conversation ends with the user."""
    turns = _all_turns(record, config)[_last_reply(record, config) :]
    return turns[0].content if turns else ""


def conversation(record: Chat, config: Config) -> tuple[Message, ...]:
    """All turns; those of the assistant are learned unless marked otherwise."""
    return _all_turns(record, config)


def candidates(config: Config) -> tuple[str, ...]:
    """(): a reply is written freely."""
    return ()


def judge(record: Chat, output: str, config: Config) -> Score:
    """ROUGE-L of a generated last turn with the one there is.

    Perplexity is not a judgement of an output: evaluation measures it from the likelihood of `conversation`.
    """
    return judged("rouge_l", output.strip(), (answer(record, config),))


def max_new_tokens(config: Config) -> int:
    """Tokens a reply may have."""
    return config.max_new_tokens


def _all_turns(record: Chat, config: Config) -> tuple[Message, ...]:
    has_system = bool(record.messages) and record.messages[0].role == "system"
    return record.messages if has_system or not config.system else (Message("system", config.system), *record.messages)


def _last_reply(record: Chat, config: Config) -> int:
    """Where the reply to the user's last turn begins."""
    turns = _all_turns(record, config)
    return max((place + 1 for place, turn in enumerate(turns) if turn.role == "user"), default=len(turns))

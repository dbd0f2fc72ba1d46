"""How a tokenizer's chat template writes a conversation, learned by showing it small ones.

Nothing is assumed about the template: where an assistant turn begins is where the rendering with the generation
prompt ends, and what closes a turn is the first special token after the answer, whatever `eos_token` says (Gemma
closes turns with ``<end_of_turn>`` and has ``<eos>`` besides). Templates that refuse or drop a system prompt get it
at the head of the user's turn.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from jinja2.exceptions import TemplateError

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Message]

PLAIN = (
    "{{ begin }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] + eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For models without a chat template, such as GPT-2: `User:` and `Assistant:`, each answer closed by `eos_token`."""

TEXT_TO_TEXT = (
    "{% for message in messages %}{% set answer = message['role'] == 'assistant' and not add_generation_prompt %}"
    "{% if not loop.first %}{{ eos_token if loop.last and answer else '\n\n' }}{% endif %}"
    "{{ message['content'] }}{% endfor %}{{ eos_token }}"
)
"""For text-to-text models, such as T5: the source closed by `eos_token`, then the answer, closed alike, no roles."""

TEXT = (
    "{{ begin or eos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)
"""For running text, whatever the chat template: as the tokenizer begins a text, and `eos_token` where it ends."""

Form = Literal["chat", "text_to_text", "text"]
_FORMS: dict[Form, str] = {"chat": PLAIN, "text_to_text": TEXT_TO_TEXT, "text": TEXT}

_TODAY = datetime.date(2024, 7, 26)
"""What templates are told the date is, so that a run gives the same tokens on any day: Llama 3's own fallback."""
_ASKED, _ANSWERED, _SYSTEM = "tunesmithasks", "tunesmithanswers", "tunesmithrules"


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant's turn in a text: characters `[start, stop)` hold what the model writes, its end mark included.

    `spoken` is where the answer ends and the end mark may begin.
    """

    start: int
    spoken: int
    stop: int
    trained: bool


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation as text, with its assistant turns in order."""

    text: str
    turns: tuple[Turn, ...]


class Dialect:
    """A tokenizer's chat template as a writer of scripts; `form` says which of ours where it has none, or for `text`.

    `mark` is the text that closes an assistant's turn; `header` what stands between the user's words and the answer;
    `template` the template's source. Raises Mistake when the template cannot be used at all.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: Form = "chat") -> None:
        self._tokenizer = tokenizer
        own = tokenizer.chat_template and form != "text"
        self.template = tokenizer.get_chat_template() if own else _FORMS[form]
        self._dated = _with_fixed_date(self.template)
        self._begin = _begin(tokenizer)
        self.opening = lru_cache(256)(self._opening)
        self._fold = False
        self._fold = not self._takes_system()
        asked = (Message("user", _ASKED),)
        opening = self.opening(asked)
        shown = self._render((*asked, Message("assistant", _ANSWERED)))
        if _ASKED not in opening or _ANSWERED not in shown:
            raise Mistake(
                f"{self._name}: its chat template leaves out what is said; expected one that writes every turn"
            )
        self.header = opening[opening.rindex(_ASKED) + len(_ASKED) :]
        self.mark = self._closing(shown[shown.rindex(_ANSWERED) + len(_ANSWERED) :])
        between = shown[len(opening) : shown.rindex(_ANSWERED)] if shown.startswith(opening) else ""
        self._lead = between if between.isspace() else ""

    def prompt(self, messages: Messages) -> Script:
        """The conversation so far and the opening of the assistant's next turn; its turns are context, not trained."""
        messages = self._folded(messages)
        text = self.opening(messages)
        return Script(text, self._turns(text, messages, trainable=False))

    def conversation(self, messages: Messages) -> Script:
        """The whole conversation; it begins with `prompt(messages[:-1]).text` if the assistant ends it.

        Raises Mistake when the template writes a trained turn differently from what it would have to be answered to.
        """
        messages = self._folded(messages)
        text = self._whole(messages)
        return Script(text, self._turns(text, messages, trainable=True))

    @property
    def _name(self) -> str:
        return self._tokenizer.name_or_path or "the tokenizer"

    def _render(self, messages: Messages, open_turn: bool = False) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        # Models that can think aloud are opened with an empty thought: they are to answer, as the examples do.
        keys: dict[str, Any] = {"begin": self._begin, "enable_thinking": False}
        try:
            text = self._tokenizer.apply_chat_template(
                turns, chat_template=self._dated, tokenize=False, add_generation_prompt=open_turn, **keys
            )
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise Mistake(
                f"{self._name}: its chat template refuses turns of {roles}: {error}; put them in its order"
            ) from None
        return cast(str, text)

    def _opening(self, messages: tuple[Message, ...]) -> str:
        return self._render(messages, open_turn=True)

    def _takes_system(self) -> bool:
        try:
            return _SYSTEM in self._render((Message("system", _SYSTEM), Message("user", _ASKED)))
        except Mistake:
            return False

    def _folded(self, messages: Messages) -> tuple[Message, ...]:
        """System prompts at the head of the next user turn where the template has no place for them."""
        if not self._fold or all(message.role != "system" for message in messages):
            return tuple(messages)
        folded: list[Message] = []
        waiting: list[str] = []
        for message in messages:
            if message.role == "system":
                waiting.append(message.content)
            elif message.role == "user":
                folded.append(Message("user", "\n\n".join((*waiting, message.content))))
                waiting = []
            else:
                folded.append(message)
        return (*folded, Message("user", "\n\n".join(waiting))) if waiting else tuple(folded)

    def _closing(self, after: str) -> str:
        """The first special token in what the template writes after an answer; `eos_token` where it writes none."""
        known = self._tokenizer.added_tokens_decoder
        for token in self._tokenizer(after, add_special_tokens=False)["input_ids"]:
            if token in known and known[token].content.strip():
                return str(known[token].content)
        if self._tokenizer.eos_token is None:
            raise Mistake(
                f"{self._name}: neither its chat template nor it has an end token; set `eos_token` in its files"
            )
        return str(self._tokenizer.eos_token)

    def _whole(self, messages: tuple[Message, ...]) -> str:
        text = self._render(messages)
        if not messages or messages[-1].role != "assistant":
            return text
        opening, content = self.opening(messages[:-1]), messages[-1].content
        if text.startswith(opening) and self.mark in text[_after(text, content, len(opening), len(text)) :]:
            return text
        # The template leaves the last turn open, or writes something else than the model would have been answering to.
        return opening + self._lead + (content if content in text else content.strip()) + self.mark

    def _turns(self, text: str, messages: tuple[Message, ...], trainable: bool) -> tuple[Turn, ...]:
        places = [place for place, message in enumerate(messages) if message.role == "assistant"]
        starts: dict[int, int] = {}
        for place in places:
            if place and text.startswith(opening := self.opening(messages[:place])):
                starts[place] = len(opening)
            elif trainable and messages[place].trained:
                why = "is rewritten by it once the conversation goes on" if place else "has nothing to answer to"
                raise Mistake(
                    f"{self._name}: turn {place + 1} of {len(messages)} cannot be learned with its chat template, "
                    f"it {why}; mark it `train: false`, or make it the end of a row of its own"
                )
        limits = [*starts.values(), len(text)][1:]
        found = []
        for (place, start), limit in zip(starts.items(), limits, strict=True):
            spoken = _after(text, messages[place].content, start, limit)
            closed = text.find(self.mark, spoken, limit)
            stop = closed + len(self.mark) if closed >= 0 else spoken
            found.append(Turn(start, spoken, stop, trainable and messages[place].trained))
        return tuple(found)


def _after(text: str, content: str, start: int, limit: int) -> int:
    """Where an answer ends in a text; its start where the template has rewritten it."""
    content = content.strip()
    found = text.find(content, start, limit)
    return start if found < 0 else found + len(content)


def _begin(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that a tokenizer itself puts before every text, for `PLAIN`; chat templates write their own."""
    bos = tokenizer.bos_token_id
    return str(tokenizer.bos_token) if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else ""


def _with_fixed_date(template: str) -> str:
    """The template with a `strftime_now` of its own, which goes before the one transformers gives it."""
    formats = {form for _, form in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", template)}
    if not formats:
        return template
    dates = json.dumps({form: _TODAY.strftime(form) for form in sorted(formats)})
    return f"{{% macro strftime_now(form) %}}{{{{ {dates}[form] }}}}{{% endmacro %}}{template}"

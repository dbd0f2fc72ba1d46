"""From messages to token ids, and which of them are trained: the one way text reaches a model in this house."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded, Message
from tunesmith.prompts.dialect import Dialect, Form, Messages, Script, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]
Range = tuple[int, int]

_AT_ONCE = 256
"""Rows tokenized in one call: enough for all cores; beginnings that they share are tokenized once."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The texts to choose between as continuations of a prompt.

    `ended` tells whether the ids hold the end of the turn: they do when one text's tokens begin another's ("good",
    "good enough"), since only its end then tells the shorter from the longer.
    """

    ids: tuple[Tokens, ...]
    ended: bool


class Template:
    """A tokenizer's chat template as token ids. Raises Mistake for tokenizers and templates that cannot be used.

    A rendered conversation is tokenized once, as it stands: the template writes the special tokens, none are added.
    The ids of `prompt(messages)` are always exactly how those of `conversation((*messages, answer))` begin; where a
    tokenizer would merge across the beginning of an answer, both sides of it are tokenized by themselves, as they are
    when the model answers. `form` is ``text_to_text`` for models that read a source and write an answer (T5), which
    matters where there is no chat template, and ``text`` where documents are read and no turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, form: Form = "chat") -> None:
        self.tokenizer = tokenizer
        if not tokenizer.is_fast:
            raise Mistake(
                f"{tokenizer.name_or_path}: a tokenizer without offsets; expected a fast one (tokenizer.json)"
            )
        self._dialect = Dialect(tokenizer, form)
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(token for token, text in added if text.content.strip())}
        self._candidates: dict[tuple[str, ...], Candidates] = {}
        self._refuse_double_beginning()

    @cached_property
    def end_ids(self) -> Tokens:
        """The tokens that end a turn: the template's end mark, and the tokenizer's end of text."""
        marks = self._encode(self._dialect.mark)
        return tuple(dict.fromkeys((marks[-1], self.tokenizer.eos_token_id or marks[-1])))

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the template and of the ids it makes: equal hashes write and tokenize alike."""
        shown = self.conversation((Message("user", "Say: 1 + 1 = two,\n\tthen ü."), Message("assistant", " Yes.\n")))
        text = json.dumps([self._dialect.template, self._dialect.mark, shown.ids, shown.weights])
        return hashlib.sha256(text.encode()).hexdigest()

    def prompt(self, messages: Messages) -> Tokens:
        """The ids after which the model answers `messages`, the opening of its turn included."""
        return self.prompts([messages])[0]

    def prompts(self, conversations: Iterable[Messages]) -> list[Tokens]:
        """`prompt` of many, in batches."""
        scripts = (self._dialect.prompt(messages) for messages in conversations)
        return [tuple(ids) for ids, *_ in self._tokenized(scripts)]

    def conversation(self, messages: Messages) -> Encoded:
        """All turns; weight 1 on every token of each trained assistant turn, the one that ends it too, 0 elsewhere."""
        return self.conversations([messages])[0]

    def conversations(self, conversations: Iterable[Messages]) -> list[Encoded]:
        """`conversation` of many, in batches."""
        scripts = (self._dialect.conversation(messages) for messages in conversations)
        return [_weighted(ids, ranges, script.turns) for ids, ranges, script in self._tokenized(scripts)]

    def candidates(self, messages: Messages, texts: Sequence[str]) -> Candidates:
        """The ids of each text as the answer to `messages`, for choosing the likeliest.

        Raises Mistake when two texts have the same tokens.
        """
        known = self._candidates.get(tuple(texts))
        if known is not None and self._dialect.prompt(messages).text.endswith(self._dialect.header):
            return known
        made = self._candidates_after(messages, texts)
        if self._tail is not None:
            self._candidates[tuple(texts)] = made
        return made

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def _tail(self) -> list[int] | None:
        """The ids between the last special token before an answer and the answer; None where there is no special token.

        What follows a special token is tokenized by itself, so where there is one an answer's ids do not depend on
        the prompt's.
        """
        header = self._encode(self._dialect.header)
        places = [place for place, token in enumerate(header) if token in self._special]
        return header[places[-1] + 1 :] if places else None

    def _candidates_after(self, messages: Messages, texts: Sequence[str]) -> Candidates:
        scripts = [self._dialect.conversation((*messages, Message("assistant", text))) for text in texts]
        whole = [tuple(ids[slice(*ranges[-1])]) for ids, ranges, _ in self._tokenized(scripts)]
        bare = [ids[:-1] if ids[-1] in self._special else ids for ids in whole]
        if () in bare:
            raise Mistake(f"{texts}: one has no tokens; expected texts to choose between; remove the empty one")
        if len(set(whole)) < len(whole):
            raise Mistake(f"{texts}: two have the same tokens; expected texts the model can tell apart; rename one")
        ended = any(one != other and other[: len(one)] == one for one in bare for other in bare)
        return Candidates(tuple(whole if ended else bare), ended)

    def _tokenized(self, scripts: Iterable[Script]) -> Iterator[tuple[list[int], list[Range], Script]]:
        """Each script's ids, the token range of each of its turns, and the script."""
        waiting = iter(scripts)
        while batch := list(islice(waiting, _AT_ONCE)):
            wholes = self._encodings([script.text for script in batch])
            aligned = [self._aligned(script, whole) for script, whole in zip(batch, wholes, strict=True)]
            split = [script for script, ranges in zip(batch, aligned, strict=True) if ranges is None]
            texts = list({script.text[: turn.start] for script in split for turn in script.turns})
            known = dict(zip(texts, self._encodings(texts), strict=True)) if texts else {}
            for script, whole, ranges in zip(batch, wholes, aligned, strict=True):
                if ranges is None:
                    yield *self._assembled(script, known | {script.text: whole}), script
                else:
                    yield whole.ids, ranges, script

    def _aligned(self, script: Script, whole: Any) -> list[Range] | None:
        """The token range of each turn where one tokenization plainly serves them all; None where that has to be seen.

        Plainly: the tokens before each answer are those of the opening alone, back to a special token.
        """
        if not script.turns:
            return []
        if self._tail is None:
            return None
        ids, offsets, ranges = whole.ids, whole.offsets, []
        for turn in script.turns:
            first = bisect_left(offsets, turn.start, key=_start)
            special = first - len(self._tail) - 1
            last = self._end(ids, offsets, first, turn)
            if ids[special] not in self._special or ids[special + 1 : first] != self._tail or last is None:
                return None
            ranges.append((first, last))
        return ranges

    def _assembled(self, script: Script, known: dict[str, Any]) -> tuple[list[int], list[Range]]:
        text, ranges = script.text, []
        first, *stops = *(turn.start for turn in script.turns), len(text)
        ids: list[int] = known[text[:first]].ids
        for turn, stop in zip(script.turns, stops, strict=True):
            ids, spoken = self._extended(ids, known[text[:stop]], text, turn, stop)
            ranges.append(spoken)
        return ids, ranges

    def _extended(self, ids: list[int], whole: Any, text: str, turn: Turn, stop: int) -> tuple[list[int], Range]:
        """The ids of `text[:stop]`, given those of `text[:turn.start]`, and the range of the turn's tokens."""
        first, longer = len(ids), whole.ids
        if longer[:first] == ids and (last := self._end(longer, whole.offsets, first, turn)) is not None:
            return longer, (first, last)
        answer = self._continued(text[turn.start : turn.stop])
        return [*ids, *answer, *self._continued(text[turn.stop : stop])], (first, first + len(answer))

    def _end(self, ids: list[int], offsets: list[Range], first: int, turn: Turn) -> int | None:
        """One past the last token of a turn that begins with token `first`; None where a token reaches past its end.

        A special token may: some take the white space after them along.
        """
        last = bisect_left(offsets, turn.stop, lo=first, key=_start)
        clean = last == first or offsets[last - 1][1] <= turn.stop or ids[last - 1] in self._special
        return last if clean else None

    def _continued(self, piece: str) -> list[int]:
        """The ids of a text that goes on from another, without the space some tokenizers put before a first word."""
        anchor = self.tokenizer.eos_token
        if anchor is not None:
            encoding = self._encodings([anchor + piece])[0]
            if encoding.ids[:1] == [self.tokenizer.eos_token_id] and encoding.offsets[0][1] == len(anchor):
                return list(encoding.ids[1:])
        return self._encode(piece)

    def _encode(self, text: str) -> list[int]:
        return list(self._encodings([text])[0].ids)

    def _encodings(self, texts: list[str]) -> list[Any]:
        # verbose=False: how long a row may be is our own business (`budget`), not a warning.
        batch = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return list(batch.encodings or ())

    def _refuse_double_beginning(self) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None and self.prompt((Message("user", "a"),))[:2] == (bos, bos):
            name, twice = self.tokenizer.name_or_path, self.tokenizer.bos_token
            raise Mistake(f"{name}: its chat template begins with two {twice}; remove one")


def _weighted(ids: list[int], ranges: list[Range], turns: tuple[Turn, ...]) -> Encoded:
    weights = [0.0] * len(ids)
    for (first, last), turn in zip(ranges, turns, strict=True):
        if turn.trained:
            weights[first:last] = [1.0] * (last - first)
    return Encoded(tuple(ids), tuple(weights))


def _start(span: Range) -> int:
    return span[0]

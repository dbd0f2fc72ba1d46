"""From documents to rows of tokens: the way running text reaches a model, without turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tunesmith.core.records import Encoded, Message, Text
from tunesmith.prompts.dialect import Form
from tunesmith.prompts.render import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def form_of(record: type | None, text_to_text: bool) -> Form:
    """How text is written for a task of such records, and a model that is text-to-text or is not."""
    if text_to_text:
        return "text_to_text"
    return "text" if record is Text else "chat"


def documents(template: Template, texts: Iterable[str], *, max_length: int) -> list[list[Encoded]]:
    """The rows of each document, `max_length` tokens at most, an end token closing the last of them.

    A row begins with the last token of the one before, which is not trained there, so that each token is trained once;
    the first row begins as the tokenizer begins any text. `template` is made with ``form="text"``, or for a
    text-to-text model.
    """
    end = template.end_ids[-1]
    encoded = template.prompts([(Message("user", text),) for text in texts])
    return [_rows(ids if ids[-1] == end else (*ids, end), max_length) for ids in encoded]


def wholes(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int) -> tuple[list[Encoded], int]:
    """Texts as rows that are read as wholes, each cut to `max_length` tokens, and how many were cut.

    Round each text stand the special tokens that the tokenizer puts there by itself. `tokenizer` is a fast one.
    """
    made = tokenizer(list(texts), truncation=True, max_length=max_length)
    cut = sum(bool(one.overflowing) for one in made.encodings or ())
    return [Encoded(tuple(ids), ()) for ids in made["input_ids"]], cut


def _rows(ids: tuple[int, ...], length: int) -> list[Encoded]:
    starts = range(0, len(ids) - 1, length - 1)
    pieces = [ids[start : start + length] for start in starts]
    return [Encoded(piece, (0.0, *([1.0] * (len(piece) - 1)))) for piece in pieces]

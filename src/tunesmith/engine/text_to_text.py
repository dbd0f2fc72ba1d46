"""Text-to-text models (T5, FLAN, BART): the encoder reads a source, the decoder writes the answer.

Rows are what they are everywhere, one run of tokens with its answer at the end (`Encoded`). What stands before the
first target is the source, virtual tokens too; the targets are what the decoder has to write. Rows of a batch are
recovered from their ways through it, padded, and given to transformers' own model; a source that several rows have (a
prompt with its candidate answers) is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from tunesmith.core.errors import Mistake
from tunesmith.engine.packing import PackedBatch
from tunesmith.engine.prepare import Prepared

Tokens = tuple[int, ...]


def target_logits(prepared: Prepared, batch: PackedBatch) -> Tensor:
    """Logits `[targets, vocabulary]` (float32) from which each of the batch's labels is predicted, in its order.

    Raises Mistake for a row whose targets are not one run at its end, as those of a chat of several turns.
    """
    rows = _rows(batch)
    sources = list(dict.fromkeys(source for source, _ in rows))
    hidden, mask = _read(prepared, sources)
    place = {source: i for i, source in enumerate(sources)}
    answered = [(place[source], answer) for source, answer in rows if answer]
    of = torch.tensor([source for source, _ in answered], device=prepared.device)
    start = _start(prepared)
    written, _ = _padded([(start, *answer[:-1]) for _, answer in answered], prepared.device)
    output = prepared.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden[of]),
        attention_mask=mask[of],
        decoder_input_ids=written,
        use_cache=False,
    )
    lengths = torch.tensor([len(answer) for _, answer in answered], device=prepared.device)
    real = torch.arange(written.shape[1], device=prepared.device) < lengths.unsqueeze(1)
    return output.logits[real].float()  # type: ignore[no-any-return]  # of transformers


class Reading:
    """Prompts that were read, and their answers as they grow, a token a row a step.

    `scores [rows, vocabulary]` are the logits of the first token; transformers' own cache holds what was computed.
    """

    def __init__(self, prepared: Prepared, prompts: Sequence[Tokens]) -> None:
        self._prepared = prepared
        self._hidden, self._mask = _read(prepared, prompts)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.scores = self.step(torch.full((len(prompts),), _start(prepared), device=prepared.device))

    def step(self, tokens: Tensor) -> Tensor:
        """Write one token a row, `[rows]`; returns the logits of the next, `[rows, vocabulary]`."""
        output = self._prepared.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._hidden),
            attention_mask=self._mask,
            decoder_input_ids=tokens.unsqueeze(1),
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.logits[:, -1].float()  # type: ignore[no-any-return]  # of transformers

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices), in this order."""
        self._hidden, self._mask = self._hidden[rows], self._mask[rows]
        self._cache.batch_select_indices(rows)


def _rows(batch: PackedBatch) -> list[tuple[Tokens, Tokens]]:
    """Source and answer of each row of a batch; a row without targets is all source."""
    tokens, index, labels = batch.tokens.tolist(), batch.index.tolist(), batch.labels.tolist()
    mine: list[list[int]] = [[] for _ in batch.ways]
    for target, row in enumerate(batch.row.tolist()):
        mine[row].append(target)
    rows = []
    for way, targets in zip(batch.ways, mine, strict=True):
        flat = [place for start, stop in way for place in range(start, stop)]
        first = len(flat) + 1 - max(1, len(targets))
        if targets and [index[target] for target in targets] != flat[first - 1 :]:
            raise Mistake(
                "a text-to-text model learns one answer at the end of a row; got one with other trained parts; "
                "mark earlier turns `train: false`, or make each the end of a row of its own"
            )
        rows.append((tuple(tokens[place] for place in flat[:first]), tuple(labels[target] for target in targets)))
    return rows


def _read(prepared: Prepared, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """The encoder's last hidden states `[sources, longest, hidden]`, and which of their positions are real."""
    ids, mask = _padded(sources, prepared.device)
    hidden: Tensor = prepared.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden, mask


def _padded(rows: Sequence[Tokens], device: torch.device) -> tuple[Tensor, Tensor]:
    tensors = [torch.tensor(row) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True)
    return pad_sequence(tensors, batch_first=True).to(device), mask.to(device)


def _start(prepared: Prepared) -> int:
    """The token that the decoder begins every answer with."""
    config: Any = prepared.model.config
    start = getattr(config, "decoder_start_token_id", None)
    return int(config.pad_token_id if start is None else start)

"""Answers read off a head's scores: what `Answerer` is for models that write, for those that only read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Chosen
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import track
from tunesmith.core.records import Encoded, Message, Text
from tunesmith.evaluation.answers import Answers, Prompting
from tunesmith.evaluation.documents import passage_scores
from tunesmith.metrics._measure import counted, measure
from tunesmith.prompts.reading import LONGEST_ANSWER, Read, Reader, first_pieces

if TYPE_CHECKING:
    import torch

    from tunesmith.engine.prepare import Prepared


PLAIN = Prompting()


@dataclass(frozen=True, slots=True)
class ReaderAnswerer:
    """A prepared model with a head, what makes rows for it, and a task; of running text `objective` hides a part."""

    prepared: Prepared
    reader: Reader
    task: Chosen
    objective: Chosen | None = None

    def answer(self, records: Sequence[Any], prompting: Prompting = PLAIN, description: str = "answer") -> Answers:
        """Answer and judge `records`; measure every metric of the task over them."""
        begun = time.monotonic()
        if self.task.module.RECORD is Text:
            return self._passages(records, prompting, description)
        module, config = self.task.module, self.task.config
        with track(len(records), "rows", description) as bar:
            rows, found = self._scores(records, prompting, bar.advance)
        labels = [self._labels(*each) for each in zip(records, rows, found, strict=True)]
        made = [module.written(record, one, config) for record, one in zip(records, labels, strict=True)]
        scores = tuple(module.judge(record, one, config) for record, one in zip(records, made, strict=True))
        outputs = tuple(one if isinstance(one, str) else " ".join(one) for one in made)
        logprobs = tuple(tuple(one.log_softmax(-1).tolist()) for one in found) if self.reader.kind == "sequence" else ()
        names = (module.METRIC, *module.METRICS)
        metrics = {name: measure(name, scores) for name in names if counted(name, scores)}
        tokens = sum(len(one.row.ids) + len(prompting.prefix) for one in rows) / max(1, len(rows))
        return Answers(outputs, scores, logprobs, tokens, time.monotonic() - begun, module.METRIC, metrics)

    def _passages(self, records: Sequence[Text], prompting: Prompting, description: str) -> Answers:
        """How well what is hidden of running text is told; nothing is written to look at."""
        assert self.objective is not None
        begun, texts = time.monotonic(), [record.text for record in records]
        with track(len(records), "rows", description) as bar:
            scores = passage_scores(
                self.prepared, self.reader, texts, self.objective, prefix=prompting.prefix, on_rows=bar.advance
            )
        name = getattr(self.objective.module, "METRIC", self.task.module.METRIC)
        tokens = sum(len(ids) for ids in self.reader.tokenizer(texts, verbose=False)["input_ids"]) / max(1, len(texts))
        return Answers((), scores, (), tokens, time.monotonic() - begun, name, {name: measure(name, scores)})

    def told(self, records: Sequence[Any], prompting: Prompting = PLAIN) -> list[dict[str, Any]]:
        """The output for each record, and the probability of each label where labels are chosen from."""
        if self.task.module.RECORD is Text:
            return self._filled([record.text for record in records], prompting)
        rows, found = self._scores(records, prompting)
        return [self._told(*each) for each in zip(records, rows, found, strict=True)]

    def _filled(self, texts: Sequence[str], prompting: Prompting) -> list[dict[str, Any]]:
        """Each text with its masks filled in, each by its likeliest token. Raises Mistake for one without a mask."""
        from tunesmith.engine.labels import read

        tokenizer, mask = self.reader.tokenizer, self.reader.tokenizer.mask_token_id
        made = [tokenizer(text, truncation=True, max_length=self.reader.window)["input_ids"] for text in texts]
        if self.reader.kind != "masked" or not all(mask in ids for ids in made):
            raise Mistake(
                f"generate: this {self.prepared.kind} fills in what is hidden and writes nothing else; "
                f"expected {tokenizer.mask_token or 'a mask'} in every text"
            )
        found = read(self.prepared, [Encoded(tuple(ids), ()) for ids in made], prefix=prompting.prefix)
        likeliest = [one.argmax(-1).tolist() for one in found]
        filled = [
            [best if token == mask else token for token, best in zip(ids, one, strict=True)]
            for ids, one in zip(made, likeliest, strict=True)
        ]
        return [{"output": tokenizer.decode(ids, skip_special_tokens=True)} for ids in filled]

    def converse(self, messages: Sequence[Message], prompting: Prompting, **keys: Any) -> str:
        """Nothing to say: raises Mistake."""
        raise Mistake(f"chat: this {self.prepared.kind} reads text and writes none; expected a decoder")

    def _scores(
        self, records: Sequence[Any], prompting: Prompting, on_rows: Callable[[float], object] = lambda n: None
    ) -> tuple[list[Read], list[torch.Tensor]]:
        from tunesmith.engine.labels import read

        rows = self.reader.read(records, self.reader.window - len(prompting.prefix))
        return rows, read(self.prepared, [one.row for one in rows], prefix=prompting.prefix, on_rows=on_rows)

    def _told(self, record: Any, row: Read, found: torch.Tensor) -> dict[str, Any]:
        module, config = self.task.module, self.task.config
        output = module.written(record, self._labels(record, row, found), config)
        if not isinstance(output, str):  # tags: shown as a person would want them, a name and its type a line
            output = module.answer(_tagged(record, output), config)
        told: dict[str, Any] = {"output": output}
        if self.reader.kind not in ("sequence", "several"):
            return told
        shares = found.softmax(-1) if self.reader.kind == "sequence" else found.sigmoid()
        return told | {"probabilities": dict(zip(self.reader.labels, shares.tolist(), strict=True))}

    def _labels(self, record: Any, row: Read, found: torch.Tensor) -> tuple[str, ...]:
        """What the scores of one row `[labels]` or `[tokens, labels]` say."""
        labels = self.reader.labels
        if self.reader.kind == "sequence":
            return (labels[int(found.argmax())],)
        if self.reader.kind == "several":
            return tuple(label for label, leaning in zip(labels, found.tolist(), strict=True) if leaning > 0)
        if self.reader.kind == "token":
            best, pieces = found.argmax(-1).tolist(), first_pieces(row.words)
            count = len(record.tokens or record.input.split())
            return tuple(labels[best[pieces[word]]] if word in pieces else "O" for word in range(count))
        return (self._span(record, row, found),)

    def _span(self, record: Any, row: Read, found: torch.Tensor) -> str:
        """The likeliest piece of the passage, "" where the first token is likelier (no answer, as in SQuAD 2.0)."""
        import torch

        inside = torch.tensor([word is not None for word in row.words])
        starts, ends = (side.masked_fill(~inside, -torch.inf) for side in found.unbind(-1))
        pairs = starts[:, None] + ends[None, :]
        allowed = torch.ones_like(pairs, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
        pairs = pairs.masked_fill(~allowed, -torch.inf)
        best = int(pairs.argmax())
        if not inside.any() or float(pairs.max()) < float(found[0].sum()):
            return ""
        start, end = divmod(best, len(row.words))
        return str(record.context[row.offsets[start][0] : row.offsets[end][1]])


def _tagged(record: Any, tags: tuple[str, ...]) -> Any:
    return replace(record, tokens=record.tokens or tuple(record.input.split()), tags=tags)

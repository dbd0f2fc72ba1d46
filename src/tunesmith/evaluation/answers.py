"""A model's answers to the rows of a task, however it is prompted or tuned, judged, measured and priced."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Chosen
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import track
from tunesmith.core.records import Message, Score, Text
from tunesmith.core.rooms import choice
from tunesmith.evaluation.documents import document_scores
from tunesmith.metrics._measure import Measurement, counted, measure
from tunesmith.models.load import context_length
from tunesmith.prompts.budget import shortened
from tunesmith.prompts.shots import Shots, as_messages

if TYPE_CHECKING:
    from tunesmith.engine.generation import Sampling
    from tunesmith.engine.prepare import Prepared
    from tunesmith.prompts.render import Template


LOOKED_AT = 8
"""Rows answered in words for a person to look at, where the metric does not need them."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """What is put around a question besides its instruction.

    `shots` are worked examples, the same for every row; with `similar` that many of them are picked for each row,
    those most like it. `offsets`, one a label, are taken from the labels' log-probabilities (calibration). `prefix`
    are virtual tokens.
    """

    shots: tuple[Any, ...] = ()
    similar: int = 0
    offsets: tuple[float, ...] = ()
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What came out of each row: the output, its score, and for labels the log-probability of each `[rows][labels]`."""

    outputs: tuple[str, ...]
    scores: tuple[Score, ...]
    logprobs: tuple[tuple[float, ...], ...]
    prompt_tokens: float
    seconds: float
    metric: str
    metrics: dict[str, Measurement] = field(default_factory=dict)

    @property
    def measured(self) -> Measurement:
        """The task's own metric."""
        return self.metrics[self.metric]

    @property
    def seconds_per_query(self) -> float:
        """Seconds a row took, all rows answered together."""
        return self.seconds / max(1, len(self.scores))


@dataclass(frozen=True, slots=True)
class Answerer:
    """A prepared model, its template and a task: everything that answering rows needs.

    `objective` matters where documents are read and it hides a part of them.
    """

    prepared: Prepared
    template: Template
    task: Chosen
    objective: Chosen | None = None

    @property
    def by_likelihood(self) -> bool:
        """Whether the task's metric reads how expected the wanted turns are, and not what the model writes."""
        return bool(choice("metrics", self.task.module.METRIC).READS == "likelihood")

    def answer(
        self, records: Sequence[Any], prompting: Prompting = Prompting(), description: str = "answer"
    ) -> Answers:
        """Answer and judge `records`; measure every metric of the task over them.

        Where the metric reads likelihood, only the first few rows are answered in words, to be looked at.
        """
        begun = time.monotonic()
        prompts = self.prompts(records, prompting)
        module, config = self.task.module, self.task.config
        labels = module.candidates(config)
        logprobs: tuple[tuple[float, ...], ...] = ()
        with track(len(records), "rows", description) as bar:
            if labels:
                logprobs = self.label_logprobs(prompts, labels, prompting, bar.advance)
                outputs = tuple(labels[best] for best in map(_largest, shifted(logprobs, prompting.offsets)))
            elif self.by_likelihood:
                outputs = self.write(prompts[:LOOKED_AT], prompting)
            else:
                outputs = self.write(prompts, prompting, bar.advance)
            scores = self._scores(records, outputs, prompting, bar.advance)
        seconds = time.monotonic() - begun
        lengths = [len(ids) + len(prompting.prefix) for ids in self.template.prompts(prompts)]
        average = sum(lengths) / max(1, len(lengths))
        metrics = {name: measure(name, rows) for name, rows in scores.items() if counted(name, rows)}
        return Answers(outputs, scores[module.METRIC], logprobs, average, seconds, module.METRIC, metrics)

    def _scores(
        self, records: Sequence[Any], outputs: Sequence[str], prompting: Prompting, on_rows: Callable[[float], object]
    ) -> dict[str, tuple[Score, ...]]:
        """The rows' scores for each metric of the task: judged outputs, or how expected the wanted turns are.

        A metric of outputs has none where not every row was answered in words.
        """
        module, config = self.task.module, self.task.config
        judged: tuple[Score, ...] = ()
        if not self.by_likelihood:
            judged = tuple(module.judge(record, one, config) for record, one in zip(records, outputs, strict=True))
        names = (module.METRIC, *module.METRICS)
        expected = [name for name in names if choice("metrics", name).READS == "likelihood"]
        hear = on_rows if self.by_likelihood else lambda n: None
        likely = self.likelihoods(records, prompting, hear) if expected else ()
        found = {name: likely if name in expected else judged for name in names}
        if "bits_per_byte" in found:
            found["bits_per_byte"] = self._by_bytes(likely, records)
        return found

    def _by_bytes(self, likely: Sequence[Score], records: Sequence[Any]) -> tuple[Score, ...]:
        """The same, shared by the bytes of the documents; none where only a part of each document is predicted."""
        if self.prepared.kind != "decoder":
            return ()
        return tuple(
            replace(one, weight=float(len(record.text.encode()))) for one, record in zip(likely, records, strict=True)
        )

    def prompts(self, records: Sequence[Any], prompting: Prompting) -> list[tuple[Message, ...]]:
        """The messages of every row: worked examples as earlier turns, then the question.

        A question too long for the model's context beside the answer loses words from its middle. Raises Mistake for
        one that does not fit even so.
        """
        module, config = self.task.module, self.task.config
        return self._written(records, prompting, module.prompt, module.max_new_tokens(config))

    def _written(
        self, records: Sequence[Any], prompting: Prompting, write: Callable[[Any, Any], tuple[Message, ...]], free: int
    ) -> list[tuple[Message, ...]]:
        """What `write` makes of each record, after its examples; `free` tokens of the context are left for more."""
        limit = context_length(self.prepared.model.config) - len(prompting.prefix) - free
        pool = Shots(prompting.shots) if prompting.similar else None
        made = []
        for record in records:
            shots = prompting.shots if pool is None else pool.choose(record, prompting.similar, "similar")
            made.append(self._fitting(record, shots, write, limit))
        return made

    def _fitting(
        self, record: Any, shots: Sequence[Any], write: Callable[[Any, Any], tuple[Message, ...]], limit: int
    ) -> tuple[Message, ...]:
        module, config = self.task.module, self.task.config
        turns = [module.conversation(shot, config) for shot in shots]

        def messages(one: Any) -> tuple[Message, ...]:
            return as_messages(turns, write(one, config))

        def tokens(one: Any) -> int:
            written = messages(one)
            spoken = written[-1].role == "assistant"
            return len(self.template.conversation(written).ids if spoken else self.template.prompt(written))

        whole = messages(record)
        # A token is a character at least (special ones more), so short prompts need no counting.
        if sum(len(message.content) + 32 for message in whole) <= limit or tokens(record) <= limit:
            return whole
        shorter = shortened(record, tokens, limit)
        if shorter is None:
            raise Mistake(
                f"{record.source or 'a row'}: {tokens(record)} tokens with its examples; the context leaves {limit}; "
                "use fewer --shots, or a model with a longer context"
            )
        return messages(shorter)

    def told(self, records: Sequence[Any], prompting: Prompting = Prompting()) -> list[dict[str, Any]]:
        """The output for each record, and where labels are chosen from the probability of each."""
        prompts: list[tuple[Message, ...]]
        if self.task.module.RECORD is Text:
            prompts = [(Message("user", record.text),) for record in records]  # all of it is gone on with
        else:
            prompts = self.prompts(records, prompting)
        labels = self.task.module.candidates(self.task.config)
        if not labels:
            return [{"output": output} for output in self.write(prompts, prompting)]
        found = self.probabilities(prompts, labels, prompting)
        return [{"output": max(shares, key=shares.__getitem__), "probabilities": shares} for shares in found]

    def label_logprobs(
        self,
        prompts: Sequence[tuple[Message, ...]],
        labels: Sequence[str],
        prompting: Prompting,
        on_rows: Callable[[float], object] = lambda n: None,
    ) -> tuple[tuple[float, ...], ...]:
        """Log-probability of each label as the answer of each row."""
        from tunesmith.engine.scoring import candidate_logprobs

        asked = self.template.prompts(prompts)
        answers = [self.template.candidates(prompt, labels).ids for prompt in prompts]
        found = candidate_logprobs(self.prepared, asked, answers, prefix=prompting.prefix, on_rows=on_rows)
        return tuple(tuple(row) for row in found.tolist())

    def write(
        self,
        prompts: Sequence[tuple[Message, ...]],
        prompting: Prompting,
        on_rows: Callable[[float], object] = lambda n: None,
    ) -> tuple[str, ...]:
        """Greedy answers as text."""
        from tunesmith.engine.generation import generate

        made = generate(
            self.prepared,
            self.template.prompts(prompts),
            max_new_tokens=self.task.module.max_new_tokens(self.task.config),
            end_ids=self.template.end_ids,
            prefix=prompting.prefix,
            on_tokens=lambda new, finished: on_rows(len(finished)),
        )
        return tuple(self.template.decode(one.ids).strip() for one in made)

    def likelihoods(
        self, records: Sequence[Any], prompting: Prompting, on_rows: Callable[[float], object] = lambda n: None
    ) -> tuple[Score, ...]:
        """How expected the wanted turns of each row are after its examples: total nats, weighing as many tokens."""
        from tunesmith.engine.scoring import sequence_logprobs

        if self.task.module.RECORD is Text:
            return document_scores(
                self.prepared,
                self.template,
                [record.text for record in records],
                objective=self.objective,
                prefix=prompting.prefix,
                on_rows=on_rows,
            )
        rows = self.template.conversations(self._written(records, prompting, self.task.module.conversation, 0))
        sums, counts = sequence_logprobs(self.prepared, rows, prefix=prompting.prefix, on_rows=on_rows)
        return tuple(Score(-float(total), weight=float(n)) for total, n in zip(sums, counts, strict=True))

    def probabilities(
        self, prompts: Sequence[tuple[Message, ...]], labels: Sequence[str], prompting: Prompting
    ) -> list[dict[str, float]]:
        """How likely each label is as the answer of each row, after calibration, adding up to 1."""
        import torch

        found = shifted(self.label_logprobs(prompts, labels, prompting), prompting.offsets)
        shares = torch.softmax(torch.tensor(found, dtype=torch.float64), dim=-1).tolist()
        return [dict(zip(labels, row, strict=True)) for row in shares]

    def rejudge(self, answers: Answers, records: Sequence[Any], offsets: Sequence[float]) -> tuple[Score, ...]:
        """The scores that the same label log-probabilities give with other offsets."""
        module, config = self.task.module, self.task.config
        labels = module.candidates(config)
        outputs = (labels[best] for best in map(_largest, shifted(answers.logprobs, offsets)))
        return tuple(module.judge(record, output, config) for record, output in zip(records, outputs, strict=True))

    def converse(
        self,
        messages: Sequence[Message],
        prompting: Prompting,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        on_text: Callable[[str], object] | None = None,
    ) -> str:
        """The assistant's next turn of a conversation; `on_text` hears it grow, in pieces that join to it."""
        from tunesmith.engine.generation import generate

        ids: list[int] = []
        told = ""

        def tell(text: str) -> None:
            nonlocal told
            if on_text is not None and len(text) > len(told):
                on_text(text[len(told) :])
                told = text

        def hear(new: dict[int, int], finished: list[int]) -> None:
            ids.extend(new.values())
            # A character of several tokens shows as replacement marks until it is whole; white space at the end of what
            # is there may turn out to be the end of all.
            tell(self.template.decode(ids).rstrip("\ufffd").strip())

        made = generate(
            self.prepared,
            [self.template.prompt(tuple(messages))],
            max_new_tokens=max_new_tokens,
            end_ids=self.template.end_ids,
            prefix=prompting.prefix,
            sampling=sampling,
            on_tokens=hear,
        )
        reply = self.template.decode(made[0].ids).strip()
        tell(reply)
        return reply

    def calibration(self, prompting: Prompting, how: str, records: Sequence[Any]) -> tuple[float, ...]:
        """Offsets that take the prompt's leaning out of the labels' log-probabilities.

        ``contextual``: the leaning is what the prompt says of empty questions ("N/A", "[MASK]", nothing), averaged as
        probabilities; W = diag(p)⁻¹ of Zhao et al. 2021 (arXiv 2102.09690). ``batch``: it is the mean over real
        questions without their answers (Zhou et al. 2023, arXiv 2309.17249).
        """
        import numpy as np

        module, config = self.task.module, self.task.config
        asked = list(records)
        if how == "contextual":
            asked = [replace(records[0], input=text, output="", outputs=()) for text in ("N/A", "[MASK]", "")]
        labels = module.candidates(config)
        found = np.array(self.label_logprobs(self.prompts(asked, prompting), labels, prompting))
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return tuple(np.log(shares.mean(axis=0)).tolist())


def shifted(logprobs: Sequence[Sequence[float]], offsets: Sequence[float]) -> list[tuple[float, ...]]:
    """Log-probabilities less the offsets (none: as they are)."""
    return [tuple(p - o for p, o in zip(row, offsets or [0.0] * len(row), strict=True)) for row in logprobs]


def _largest(row: Sequence[float]) -> int:
    return max(range(len(row)), key=lambda place: row[place])

"""A look at training rows with the plain base, for methods that choose what to train by what they see there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.progress import track
from tunesmith.core.records import Encoded
from tunesmith.core.seed import derive
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import PackedBatch, pack
from tunesmith.engine.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Look:
    """Passes over a sample of `rows`, one row at a time; the model is as before afterwards, random numbers too."""

    prepared: Prepared
    rows: Sequence[Encoded]
    seed: int

    def gradients(self, names: Sequence[str], note: Callable[[str, Tensor], None], rows: int) -> None:
        """Call ``note(name, gradient)`` for each of the parameters `names` on each of `rows` rows in turn.

        The gradient is that of a row's loss, nats summed over its targets. It is let go at once: all gradients together
        would take as much memory as the model.
        """
        model = self.prepared.model

        def hand_over(name: str) -> Callable[[Tensor], None]:
            def take(parameter: Tensor) -> None:
                assert parameter.grad is not None
                note(name, parameter.grad)
                parameter.grad = None

            return take

        with self._alone(), ExitStack() as stack:
            for name in names:
                parameter = model.get_parameter(name).requires_grad_(True)
                stack.callback(parameter.register_post_accumulate_grad_hook(hand_over(name)).remove)
            for _, batch in self._batches(rows, lambda row: row):
                loss: Any = -(forward(self.prepared, batch).logprobs * batch.weights).sum()
                loss.backward()

    def features(self, places: Sequence[str], rows: int) -> tuple[dict[str, Tensor], list[str]]:
        """What leaves the modules at `places`, mean over a row's prompt, `[rows, hidden]` each; and the rows' answers.

        Answers are texts of token ids: rows with the same one are of one kind. The answer itself is not read.
        """
        seen: dict[str, list[Tensor]] = {place: [] for place in places}
        answers: list[str] = []
        length: int | None = None

        def keep(place: str) -> Callable[[Any, Any, Any], None]:
            def take(module: Any, inputs: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                seen[place].append(hidden[0, :length].float().mean(dim=0).cpu())

            return take

        with self._alone(), torch.no_grad(), ExitStack() as stack:
            for place in places:
                hook = self.prepared.model.get_submodule(place).register_forward_hook(keep(place))
                stack.callback(hook.remove)
            for row, batch in self._batches(rows, self._unanswered):
                length = len(batch.tokens) if self.prepared.kind == "decoder" else None  # a decoder's pack is filled up
                forward(self.prepared, batch)
                answers.append(" ".join(map(str, _answer(row))))
        return {place: torch.stack(vectors) for place, vectors in seen.items()}, answers

    def _unanswered(self, row: Encoded) -> Encoded:
        """The prompt and one token to be predicted: a decoder predicts at every place, so that each one is computed.

        A row with labels holds no answer.
        """
        if row.labels:
            return row
        prompt = next((place for place, weight in enumerate(row.weights) if weight), len(row.ids))
        before = 1.0 if self.prepared.kind == "decoder" else 0.0
        return replace(row, ids=row.ids[: prompt + 1], weights=(before,) * prompt + (1.0,))

    def _batches(self, count: int, shown: Callable[[Encoded], Encoded]) -> Iterator[tuple[Encoded, PackedBatch]]:
        """A sample of the rows in an order that follows from the seed, each as it is and as it is shown, by itself."""
        generator = torch.Generator().manual_seed(derive(self.seed, "survey"))
        chosen = torch.randperm(len(self.rows), generator=generator)[:count].tolist()
        with track(len(chosen), "rows", "looking at the data") as bar:
            for place in chosen:
                row = self.rows[place]
                yield row, pack([shown(row)], share=False).to(self.prepared.device)
                bar.advance(1)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nothing of the model wants a gradient but what is asked for, meanwhile, and nothing is drawn."""
        model = self.prepared.model
        wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        model.requires_grad_(False).eval()
        devices = [self.prepared.device] if self.prepared.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            for parameter, did in wanted:
                parameter.requires_grad_(did)


def _answer(row: Encoded) -> list[int]:
    """What is to be predicted: a row's labels, or the tokens that it is trained on."""
    if row.labels:
        return [label for _, label in row.labels]
    return [token for token, weight in zip(row.ids, row.weights, strict=True) if weight]

"""Forgetting kept in check: where `forgetting:` of a task file becomes rows, penalties and a gate, and is measured.

Everything here begins with the base's own answers to general prompts, others than those that forgetting is measured
on: they are trained on again (replay), held on to (KL), and tell which weights matter (EWC).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from tunesmith.core.config import Chosen, Project, choose
from tunesmith.core.config import Forgetting as Asked
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write
from tunesmith.core.packages import cache_home
from tunesmith.core.progress import say
from tunesmith.core.records import Encoded, Message
from tunesmith.data._spec import source_of
from tunesmith.engine.generation import generate
from tunesmith.engine.journal import Reading
from tunesmith.engine.loop import Penalty
from tunesmith.engine.penalties import Leash, Pull, fisher
from tunesmith.evaluation.forgetting import Base, Forgetting, drift, embedded, forgetting, remember, replay_prompts
from tunesmith.models.load import context_length
from tunesmith.prompts.budget import cut
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._work import Model, read_source

Told = TypeVar("Told")

REPLAY_TOKENS = 48
"""Tokens of each of the base's answers that are trained on again."""
LEASH_TOKENS, LEASH_ROWS_A_STEP = 16, 4
"""Tokens of an answer, and answers a step, on which KL is held: every second answer, 75 MB at 49,152 tokens."""
FISHER_EVERY = 4
"""Every which answer the importance of weights is told from: a backward pass each."""


@dataclass(frozen=True, slots=True)
class Restraint:
    """What holds a training to the base, made while the model is still the base.

    `rows` are to be trained on beside the person's; `base` is what forgetting is measured against, None until somebody
    needs it.
    """

    project: Project
    model: Model
    rows: tuple[Encoded, ...] = ()
    answers: tuple[Encoded, ...] = ()
    leash: Leash | None = None
    base: Base | None = None

    def penalties(self, prefix: Sequence[int]) -> dict[str, Penalty]:
        """What the task file asks for, for the method that has just been attached, with its virtual tokens."""
        asked, prepared = self.project.forgetting, self.model.prepared
        made: dict[str, Penalty] = {}
        if self.leash is not None:
            self.leash.prefix = prefix
            made["kl"] = self.leash
        if asked.l2:
            made["l2"] = Pull(prepared, asked.l2)
        if asked.ewc:
            made["ewc"] = Pull(prepared, asked.ewc, fisher(prepared, self.answers[::FISHER_EVERY], prefix))
        return made

    def gate(self, prefix: Sequence[int]) -> Callable[[], Reading] | None:
        """What is asked at every validation, None where any forgetting is allowed."""
        base = self.base
        if base is None or not is_gated(self.project):
            return None

        def ask() -> Reading:
            lost = forgetting(self.model.prepared, base, prefix=prefix)
            measured = {"forgetting_kl": lost.kl, "forgetting_bits_per_byte": lost.rise}
            return Reading(measured, outside(self.project.forgetting, lost.kl, lost.rise))

        return ask

    def lost(self, method: Chosen, prefix: Sequence[int]) -> Forgetting | None:
        """What the model with `method` attached and trained has lost; None of one that writes nothing to compare."""
        if self.model.reader is not None:
            return None
        base = self.base or _of_the_base(self.model, method, lambda: remember(self.model.prepared, self.model.template))
        return forgetting(self.model.prepared, base, prefix=prefix)

    def drifted(self, method: Chosen, prefix: Sequence[int]) -> float:
        """How far the embeddings of an encoder with `method` attached and trained lie from the base's."""
        prepared, tokenizer = self.model.prepared, self.model.loaded.tokenizer
        base = _of_the_base(self.model, method, lambda: embedded(prepared, tokenizer))
        return drift(base, embedded(prepared, tokenizer, prefix=prefix))

    def tell(self, outcome: Outcome, method: Chosen, prefix: Sequence[int]) -> None:
        """Write into the outcome what the model with `method` attached and trained has lost.

        A method with a head of its own leaves the body as it is, so nothing.
        """
        same = getattr(method.module, "HEAD", False)
        if self.model.prepared.kind == "encoder":
            outcome.forgetting_drift = 0.0 if same else self.drifted(method, prefix)
        elif same:
            outcome.forgetting_kl = outcome.forgetting_bits_per_byte = 0.0
        elif (lost := self.lost(method, prefix)) is not None:
            outcome.forgetting_kl, outcome.forgetting_bits_per_byte = lost.kl, lost.rise


def restrain(project: Project, model: Model, rows: int, base: Base | None = None) -> Restraint:
    """Make ready what `project.forgetting` asks for, beside `rows` training rows; the model must still be the base.

    Raises Mistake where `replay_data` cannot be read, where no general row fits into `max_length`, and where the model
    writes no answers that could be held on to.
    """
    asked = project.forgetting
    if model.reader is not None:
        _refuse_what_needs_answers(project)
    answers = _answers(model) if asked.kl or asked.ewc or (asked.replay and not asked.replay_data) else ()
    leash = None
    if asked.kl:
        beginnings = [_beginning(row, LEASH_TOKENS) for row in answers[::2]]
        leash = Leash(model.prepared, beginnings, asked.kl, LEASH_ROWS_A_STEP)
    if is_gated(project) and base is None:
        base = remember(model.prepared, model.template)
    return Restraint(project, model, _replayed(project, model, rows, answers), answers, leash, base)


def is_gated(project: Project) -> bool:
    """Whether the task file says how much may be lost."""
    return project.forgetting.max_kl is not None or project.forgetting.max_drop is not None


def outside(asked: Asked, kl: float | None, drop: float | None) -> str:
    """Which bound of the gate is passed, in words; "" inside it."""
    if asked.max_kl is not None and kl is not None and kl > asked.max_kl:
        return f"KL {kl:.3f} from the base is over max_kl {asked.max_kl:g}"
    if asked.max_drop is not None and drop is not None and drop > asked.max_drop:
        return f"{drop:.3f} more bits a byte of general text is over max_drop {asked.max_drop:g}"
    return ""


def _refuse_what_needs_answers(project: Project) -> None:
    given = project.forgetting.model_dump(exclude_defaults=True)
    if others := [f"forgetting.{key}" for key in given if key != "l2"]:
        raise Mistake(
            f"{', '.join(others)}: {project.model} is an encoder, which writes no answers to hold on to; "
            "expected a model that writes; leave it out, or hold the weights to their start with forgetting.l2"
        )


def _of_the_base(model: Model, method: Chosen, ask: Callable[[], Told]) -> Told:
    """What the base itself tells: what is attached is taken off for a while."""
    live = model.loaded.model
    learned = method.module.state(live)
    method.module.detach(live)
    try:
        return ask()
    finally:
        with torch.random.fork_rng(devices=[]):  # its start is overwritten at once
            method.module.attach(live, method.config)
        method.module.restore(live, learned)


def _replayed(project: Project, model: Model, rows: int, answers: Sequence[Encoded]) -> tuple[Encoded, ...]:
    """As many general rows as make up their share beside `rows` of the person's, in turn."""
    share = project.forgetting.replay
    if not share:
        return ()
    length = min(project.max_length, context_length(model.loaded.model.config))
    pool = [row for row in answers if len(row.ids) <= length]
    if project.forgetting.replay_data:
        task = choose("tasks", "generation")
        source = source_of(project.forgetting.replay_data, encoding=project.data.encoding)
        module, config = task.module, task.config
        records = read_source(task, source).records
        pool = list(cut(records, lambda one: module.conversation(one, config), model.template, max_length=length).rows)
    if not pool:
        raise Mistake(f"forgetting.replay: no general row fits into {length} tokens; raise max_length, or set it to 0")
    wanted = max(1, round(rows * share / (1 - share)))
    say(f"{wanted} general rows are trained on beside yours (forgetting.replay)")
    return tuple(pool[place % len(pool)] for place in range(wanted))


def _answers(model: Model) -> tuple[Encoded, ...]:
    """The base's answers to general prompts, `REPLAY_TOKENS` long at most; made once for a model, then kept."""
    asked = replay_prompts()
    prompts = [model.template.prompt((Message("user", prompt),)) for prompt in asked]
    made_of = [model.loaded.identity, str(model.prepared.dtype), str(model.prepared.device), REPLAY_TOKENS, prompts]
    kept = cache_home() / "answers" / f"{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]}.json"
    if kept.exists():
        answers = json.loads(kept.read_text(encoding="utf-8"))
    else:
        say(f"the base answers {len(prompts)} general prompts, once")
        end_ids = model.template.end_ids
        made = generate(model.prepared, prompts, max_new_tokens=REPLAY_TOKENS, end_ids=end_ids)
        answers = [[*one.ids, *end_ids[:1]] if one.finished else [*one.ids] for one in made]
        atomic_write(kept, json.dumps(answers), remedy="set TUNESMITH_HOME to a folder with room")
    return tuple(_row(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))


def _row(prompt: Sequence[int], answer: Sequence[int]) -> Encoded:
    return Encoded((*prompt, *answer), (*([0.0] * len(prompt)), *([1.0] * len(answer))))


def _beginning(row: Encoded, tokens: int) -> Encoded:
    """The row up to the first `tokens` of its answer."""
    stop = row.weights.index(1.0) + tokens
    return Encoded(row.ids[:stop], row.weights[:stop])

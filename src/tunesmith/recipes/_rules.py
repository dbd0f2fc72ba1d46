"""When a climb stops, and which rung it chooses: rules that look at what was tried and at nothing else."""

from __future__ import annotations

from tunesmith.core.config import Forgetting, Project
from tunesmith.core.rooms import choice
from tunesmith.metrics._measure import Difference, compare
from tunesmith.recipes._forgetting import outside
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._rungs import PROMPT_RUNGS, Tried

WITHOUT_GAIN = 2
"""Trained rungs in a row that may bring nothing before the climb ends."""
SOFT = frozenset({"prompt_tuning", "prefix", "p_tuning"})
"""Rungs that leave every weight alone: weak on small models, so their failure says nothing of the rungs above."""


def reason_to_stop(project: Project, tried: dict[str, Tried], left: float) -> str:
    """Why no further rung is tried, "" while there is reason to go on; `left` are the seconds of the budget."""
    if project.target is not None and tried:
        leading = best(tried).outcome
        higher = choice("metrics", leading.metric).BETTER == "higher"
        bound = leading.low if higher else leading.high
        if bound is not None and (bound >= project.target if higher else bound <= project.target):
            return f"not needed: {leading.name} meets the target of {project.target:g}"
    if (count := without_gain(tried)) >= WITHOUT_GAIN:
        return f"not needed: {count} trained rungs in a row brought nothing beyond noise"
    if tried and left <= 0:
        return f"no time left of {project.budget.minutes:g} minutes"
    return ""


def without_gain(tried: dict[str, Tried]) -> int:
    """How many trained rungs in a row, the latest last, were not better beyond noise than the best before them.

    Soft prompts neither count nor break the row.
    """
    count, before = 0, dict[str, Tried]()
    for name, one in tried.items():
        if before and name not in PROMPT_RUNGS and name not in SOFT:
            count = 0 if versus(best(before), one).better else count + 1
        before[name] = one
    return count


def choose_rung(tried: dict[str, Tried], asked: Forgetting) -> str:
    """The first rung, from cheap to dear, that is not worse than the best beyond noise.

    One that forgets no more than `asked` comes before one that does.
    """
    leading = best(tried)
    good = [name for name, one in tried.items() if not versus(leading, one).worse]
    return next((name for name in good if not forgets_too_much(tried[name].outcome, asked)), good[0])


def forgets_too_much(outcome: Outcome, asked: Forgetting) -> str:
    """Which bound of the gate a rung passes, in words; "" inside it."""
    return outside(asked, outcome.forgetting_kl, outcome.forgetting_bits_per_byte)


def best(tried: dict[str, Tried]) -> Tried:
    """The rung with the best value of the task's metric, the cheaper of equals."""
    sign = 1.0 if choice("metrics", next(iter(tried.values())).outcome.metric).BETTER == "higher" else -1.0
    return max(tried.values(), key=lambda one: sign * (one.outcome.value or 0.0))


def versus(before: Tried, one: Tried) -> Difference:
    """How much better `one` is than `before` on the same rows, by a paired bootstrap."""
    return compare(one.outcome.metric, before.scores, one.scores)

"""The strengths of an artifact that were tried, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.core.config import Forgetting
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice
from tunesmith.evaluation.answers import Answers
from tunesmith.metrics._measure import Measurement, compare
from tunesmith.recipes._forgetting import outside

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""The strengths that are tried; 0 is the base, for comparison, and never chosen."""


@dataclass(frozen=True, slots=True)
class Strength:
    """A strength, what it forgets, and how it answers; None where there are no rows to answer."""

    factor: float
    kl: float
    rise: float
    answers: Answers | None = None

    @property
    def measured(self) -> Measurement | None:
        """The task's own metric on the validation rows."""
        return self.answers.measured if self.answers else None

    def told(self) -> dict[str, Any]:
        """The strength as scale.json has it."""
        quality = asdict(self.measured) if self.measured else {}
        return {"factor": self.factor, **quality, "forgetting_kl": self.kl, "forgetting_bits_per_byte": self.rise}

    def line(self) -> str:
        """What was found, in a few words."""
        one = self.measured
        quality = f", {one.metric.replace('_', ' ')} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" if one else ""
        return f"× {self.factor:g}: KL {self.kl:.4f} nats a token{quality}"


def choose_strength(tried: Sequence[Strength], asked: Forgetting, factor: float | None = None) -> Strength:
    """The strength to be kept: `factor` by hand, else by what was measured.

    Where `asked` bounds what may be lost it is the best inside; else the weakest that is not worse than the best
    beyond noise. Raises Mistake when nothing is inside.
    """
    if factor is not None:
        return next(one for one in tried if one.factor == factor)
    candidates = [one for one in tried if one.factor > 0]
    inside = [one for one in candidates if not outside(asked, one.kl, one.rise)]
    if not inside:
        weakest = min(candidates, key=lambda one: one.factor)
        raise Mistake(
            f"even at {weakest.factor:g} {outside(asked, weakest.kl, weakest.rise)}; raise the bound, "
            f"or type --factor {weakest.factor / 2:g} by hand"
        )
    best = max(inside, key=lambda one: (_quality(one), -one.factor))
    if asked.max_kl is not None or asked.max_drop is not None:
        return best
    return next(one for one in sorted(inside, key=lambda one: one.factor) if not _is_worse(one, best))


def verdict(chosen: Strength, tried: Sequence[Strength], method: str) -> str:
    """The choice in one sentence: how strong, how good, what it keeps."""
    full, base = tried[0], next((one.measured for one in tried if not one.factor), None)
    quality, before = chosen.measured, full.measured
    parts = [f"Use {method} at {chosen.factor:g} of its strength"]
    if quality and before:
        name = quality.metric.replace("_", " ")
        interval = f"{quality.low:.3f} to {quality.high:.3f}, {quality.n} validation rows"
        parts.append(f"{name} {quality.value:.3f} ({interval}) where all of it gets {before.value:.3f}")
        parts[-1] += f" and the base alone {base.value:.3f}" if base else ""
    parts.append(f"KL {chosen.kl:.3f} nats a token from the base instead of {full.kl:.3f}")
    return f"{parts[0]}: {', '.join(parts[1:])}."


def _quality(one: Strength) -> float:
    assert one.measured is not None
    return one.measured.value if choice("metrics", one.measured.metric).BETTER == "higher" else -one.measured.value


def _is_worse(one: Strength, best: Strength) -> bool:
    assert one.answers is not None
    assert best.answers is not None
    return compare(best.answers.measured.metric, best.answers.scores, one.answers.scores).worse

"""Climb: try the rungs from cheap to dear, and stop at the cheapest that is as good as the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Project
from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.progress import say
from tunesmith.core.rooms import choice, names
from tunesmith.engine.loop import Diverged
from tunesmith.engine.memory import DoesNotFit
from tunesmith.methods._attachment import Unsuited
from tunesmith.recipes._bench import open_bench, read_as
from tunesmith.recipes._outcome import load
from tunesmith.recipes._reading import WHOLE_ROWS
from tunesmith.recipes._record import recorded
from tunesmith.recipes._rules import best, choose_rung, reason_to_stop, versus
from tunesmith.recipes._rungs import PROMPT_RUNGS, Bench, NoRoom, Tried, few_shot, trained, zero_shot
from tunesmith.recipes._summary import PROOF_SHARE, SECONDS_A_TEST_ROW, Summary
from tunesmith.recipes._work import folder_of, read_examples

LADDER = ("zero_shot", "few_shot", "prompt_tuning", "bitfit", "lora", "full")
"""The rungs in order of cost; other methods come where `rungs` puts them."""
DEFAULT = LADDER[:-1]
READING = ("features", "bitfit", "lora")
"""The rungs of a model that reads and writes nothing, where nobody names others: it cannot be asked in words."""
SHARES = {"zero_shot": 1.0, "few_shot": 1.0, "prompt_tuning": 1.0, "bitfit": 1.0, "lora": 2.0, "full": 3.0}
"""How the time that is left is divided among the rungs that are left."""


def climb(project: Project) -> dict[str, Any]:
    """Climb, and return what `climb.json` holds; the winner lies in `artifact/`, the page is `report.html`.

    Finished rungs of an earlier climb with the same task, data and model in the same folder are kept, so that an
    interrupted climb goes on where it stopped. Raises Mistake for bad input, and KeyboardInterrupt after keeping every
    finished rung.
    """
    begun = time.monotonic()
    rungs = rungs_of(project)
    project, examples = read_examples(project)
    folder = folder_of(project)
    summary = Summary(project, examples, folder, begun)
    with recorded(project, "climb", folder, examples) as record:
        bench = open_bench(project, examples, folder, summary.seconds_left())
        if bench.model.reader is not None and not project.rungs:
            rungs = _reading_rungs(project.task)
        tried: dict[str, Tried] = {}
        for place, name in enumerate(rungs):
            reason = reason_to_stop(project, tried, summary.seconds_left())
            if reason:
                summary.skip(name, reason)
                continue
            seconds = _share(rungs[place:], summary.seconds_left() - _reserve(bench))
            one = _try(bench, name, folder / "rungs" / name, seconds, summary)
            if one is None:
                continue
            tried[name] = one
            summary.add(one.outcome)
            record.measured("validation", one.measurements(), {"rung": name})
        if not tried:
            raise Mistake(
                "no rung could be tried; see the reasons above, and raise --budget.minutes or --budget.memory_gb"
            )
        leading = best(tried)
        chosen = choose_rung(tried, project.forgetting)
        summary.choose(chosen, {name: asdict(versus(leading, one)) for name, one in tried.items()})
        summary.prove(bench, record, leading.outcome)
        return summary.write()


def rungs_of(project: Project) -> list[str]:
    """The rungs to try, from cheap to dear. Raises Mistake for one that is neither a prompt nor a method."""
    wanted = project.rungs or list(DEFAULT)
    known = [*PROMPT_RUNGS, *names("methods")]
    for name in wanted:
        if name not in known:
            raise Mistake(f"rungs: there is no '{name}'; {nearest(name, known)}")
    order = {name: place for place, name in enumerate(LADDER)}
    return sorted(dict.fromkeys(wanted), key=lambda name: order.get(name, wanted.index(name) + len(LADDER)))


def _reading_rungs(task: Chosen) -> list[str]:
    """`READING`, without the methods that label whole rows where the task is about something else."""
    whole = getattr(task.module, "HEAD", "") in WHOLE_ROWS
    return [name for name in READING if whole or not getattr(choice("methods", name), "HEAD", False)]


def _try(bench: Bench, name: str, here: Path, seconds: float, summary: Summary) -> Tried | None:
    """Try one rung, or take it over from an earlier climb; None when it does not fit, or its training diverges."""
    if (kept := load(here)) is not None:
        bench.seconds_per_query = bench.seconds_per_query or kept[0].seconds_per_query or 0.0
        say(f"{name}: finished before, {kept[0].line()}")
        return Tried(kept[0], tuple(kept[1]))
    try:
        if name in PROMPT_RUNGS:
            if bench.model.reader is not None:
                raise NoRoom("an encoder is not asked in words: it has nothing to say before it is trained")
            one = zero_shot(bench, here) if name == "zero_shot" else few_shot(bench, here, seconds)
        else:
            one = trained(read_as(bench, name), name, here, seconds)
    except (NoRoom, DoesNotFit, Diverged, Unsuited) as reason:
        summary.skip(name, str(reason))
        return None
    except KeyboardInterrupt:
        summary.skip(name, "interrupted; type the same command again to go on", status="interrupted")
        raise
    one.outcome.save(here, one.scores)
    say(f"{name}: {one.outcome.line()}")
    return one


def _share(rungs: Sequence[str], seconds: float) -> float:
    shares = [SHARES.get(name, 2.0) for name in rungs]
    return seconds * shares[0] / sum(shares)


def _reserve(bench: Bench) -> float:
    """Seconds kept for proving the winner on the test rows, and for writing down what was found."""
    budget = 60 * bench.project.budget.minutes
    proof = len(bench.examples.test) * SECONDS_A_TEST_ROW * bench.seconds_per_query
    return min(proof, PROOF_SHARE * budget) + min(10.0, 0.05 * budget)

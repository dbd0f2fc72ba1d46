"""The study of a sweep: its trials on disk, where several workers meet, and what they found.

Trials are chosen by TPE (Bergstra et al. 2011, NeurIPS 24) and ended early by ASHA (Li et al. 2018, arXiv 1810.05934):
at the first, second and fourth validation only the better half goes on. Everything lies in one journal file, so the
same command started twice works on one study, and a killed one leaves what it had finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake
from tunesmith.core.machine import inspect
from tunesmith.core.seed import derive
from tunesmith.recipes._space import Dimension
from tunesmith.store.process import lives, this_process

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

OBJECTIVES = ("quality", "seconds", "forgetting")
"""What a trial is judged by, each the lower the better: validation loss (nats a target), training time, mean KL."""
FEWEST_FOR_IMPORTANCE = 4
_JOURNAL = "study.journal"


def open_study(folder: Path, key: Mapping[str, Any], objectives: Sequence[str], seed: int) -> Study:
    """The study in `folder`, begun or gone on with; trials that died with their process are put back in the queue.

    `key` is what makes two sweeps the same. Raises Mistake when the folder holds another one.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = str(folder / _JOURNAL)
    storage = optuna.storages.JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
    study = optuna.create_study(
        storage=storage,
        study_name="sweep",
        directions=["minimize"] * len(objectives),
        load_if_exists=True,
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    before = study.user_attrs.get("key", key)
    for name in key:
        if before.get(name) != key[name]:
            raise Mistake(
                f"{folder}: holds a sweep with other {name}: {before.get(name)} there, {key[name]} now; "
                "choose another --output-dir, or remove it to begin anew"
            )
    study.set_user_attr("key", dict(key))
    seen = len(study.trials)  # another worker, or this one later, must not draw the same values again
    study.sampler = optuna.samplers.TPESampler(seed=derive(seed, "sweep", seen) % 2**32, n_startup_trials=5)
    _requeue_dead(study)
    return study


def ask(study: Study) -> Trial:
    """The next trial, in the name of this process."""
    trial = study.ask()
    trial.set_user_attr("process", this_process(inspect()))
    return trial


def put_back(study: Study, trial: Trial | FrozenTrial) -> None:
    """End a trial that was interrupted, and queue its values to be tried anew."""
    from optuna.trial import TrialState

    study.tell(trial.number, state=TrialState.FAIL)
    if trial.params:
        study.enqueue_trial(trial.params)


def twin(study: Study, trial: Trial) -> FrozenTrial | None:
    """An earlier trial with the very same values that came to its end, None where there is none."""
    ended = (one for one in study.trials if one.state.name in {"COMPLETE", "PRUNED"})
    return next((one for one in ended if one.params == trial.params), None)


def copy(study: Study, trial: Trial, twin: FrozenTrial) -> None:
    """End a trial as its twin ended: training it again would find the very same."""
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    trial.set_user_attr("reason", f"as trial {twin.number}, not trained again")
    study.tell(trial, twin.values if twin.state.name == "COMPLETE" else None, state=twin.state)


def counted(study: Study) -> int:
    """Trials that came to an end or are under way; interrupted and waiting ones left out."""
    return sum(_state(trial) in {"finished", "pruned", "failed", "running"} for trial in study.trials)


def best(study: Study) -> FrozenTrial | None:
    """The finished trial of the lowest first objective, None when none is finished."""
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return min(finished, key=lambda trial: (trial.values[0], trial.number), default=None)


def front(study: Study) -> list[int]:
    """Numbers of the finished trials that no other one beats in every objective."""
    return sorted(trial.number for trial in study.best_trials) if best(study) else []


def importances(study: Study) -> dict[str, float]:
    """What share of the first objective's variation each key explains (PED-ANOVA, arXiv 2304.10255), largest first.

    Empty while too few trials are finished to tell.
    """
    from optuna.importance import get_param_importances

    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.values[0] for trial in finished}) == 1:
        return {}
    return {name: float(share) for name, share in get_param_importances(study, target=_first).items()}


def rows(study: Study, objectives: Sequence[str], space: Iterable[Dimension]) -> list[dict[str, Any]]:
    """Every trial as plain values: number, state, its values of what is searched and of the objectives, and why."""
    keys = [one.key for one in space]
    best_one, on_front = best(study), set(front(study))
    found = []
    for trial in study.trials:
        reached = trial.values or (list(trial.intermediate_values.values())[-1:] if len(objectives) == 1 else [])
        found.append(
            {
                "number": trial.number,
                "state": _state(trial),
                "reason": trial.user_attrs.get("reason", ""),
                "params": {key: trial.params.get(key) for key in keys},
                "values": dict(zip(objectives, reached, strict=False)),
                "seconds": trial.user_attrs.get("seconds"),
                "validations": len(trial.intermediate_values) or None,
                "chosen": best_one is not None and trial.number == best_one.number,
                "front": trial.number in on_front,
            }
        )
    return found


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _state(trial: FrozenTrial) -> str:
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting"}
    return words.get(trial.state.name) or ("failed" if trial.user_attrs.get("reason") else "interrupted")


def _requeue_dead(study: Study) -> None:
    for trial in study.trials:
        process = trial.user_attrs.get("process")
        if trial.state.name == "RUNNING" and process is not None and lives(process) is False:
            put_back(study, trial)

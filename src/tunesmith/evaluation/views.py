"""What a report shows, worked out from climb.json or result.json before any of it is laid out.

The files may be those of an interrupted climb: what is not known is None or empty here, and the page leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.evaluation import amounts, pictures, plots, search_plots
from tunesmith.evaluation.amounts import is_number, words


class Figure(NamedTuple):
    """One of the large figures at the top of a page."""

    label: str
    value: str
    note: str


_RUNG_FIELDS = (
    *("metric", "value", "low", "high", "n", "seconds", "train_seconds", "peak_memory_mb", "trainable_parameters"),
    *("artifact_bytes", "money", "prompt_tokens_per_query", "seconds_per_query", "forgetting_kl"),
    *("forgetting_bits_per_byte", "forgetting_drift", "reason", "caution", "confusion"),
)
# What a method found out about each layer: too long to read, drawn instead.
_DRAWN = ("importance", "rows")
_CIRCUMSTANCES = ("stopped", "task", "data", "budget", "machine")


def climb_view(climb: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page of a climb shows."""
    rungs = [_rung(rung) for rung in climb.get("rungs", ())]
    finished = [rung for rung in rungs if rung["finished"]]
    chosen = next((rung for rung in finished if rung["chosen"]), None)
    pictures.lay_bars(finished)
    cautions = [
        ("test", (climb.get("test") or {}).get("caution")),
        *((rung["name"], rung["caution"]) for rung in rungs),
    ]
    return {
        "name": climb.get("name") or "climb",
        "verdict": climb.get("verdict") or _so_far(len(finished)),
        "model": climb.get("model"),
        "command": climb.get("command"),
        "metric": words(climb.get("metric")),
        "split": climb.get("split") or "validation",
        "rungs": rungs,
        "figures": [*_quality_figures(climb, chosen), *_price_figures(chosen)] if chosen else [],
        "others": _metrics(climb.get("test"), besides=climb.get("metric")),
        "costs": pictures.against_cost(climb, finished),
        "forgetting": pictures.against_forgetting(climb, finished),
        "curves": [rung for rung in rungs if rung["picture"]],
        "confusions": [rung for rung in finished if rung["confusion"]],
        "examples": _side_by_side(finished),
        "cautions": [told for told in cautions if told[1]],
        "priced": any(is_number(rung["money"]) for rung in finished),
        "drifts": any(is_number(rung["forgetting_drift"]) for rung in finished),
        "receipt": facts(climb.get("receipt") or {}),
        "facts": _how_it_was_made(climb),
    }


def run_view(result: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page of one run shows; its main metric comes first."""
    rung = _rung({"name": "run", **result})
    main = {str(result.get("metric") or "quality"): result} if rung["finished"] else {}
    measured = {**main, **dict(_metrics(result, besides=result.get("metric")))}
    return {
        "name": rung["name"],
        "verdict": result.get("verdict") or _in_short(rung),
        "model": result.get("model"),
        "command": result.get("command"),
        "rung": rung,
        "figures": [*(_measured_figure(words(name), m) for name, m in measured.items()), *_price_figures(rung)],
        "pictures": [plots.curve(result.get("curve") or (), frame, rung["name"]) for frame in pictures.FRAMES],
        "forgetting": pictures.on_the_way(result),
        "examples": _side_by_side([rung]),
        "receipt": facts(result.get("receipt") or {}),
        "facts": _how_it_was_made(result),
    }


def mixture_view(result: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page of a mixture shows; a task's own metric comes first among its metrics."""
    tasks = [_rung(task) for task in result.get("tasks", ())]
    for task in tasks:
        own = [(words(task["metric"]), _measurement(task))] if task["finished"] else []
        task["measured"] = [*own, *_metrics(task, besides=task["metric"])]
        task["examples"] = _side_by_side([task])
    trained = [_rung(rung) for rung in result.get("trained", ())]
    for rung in trained:
        rung["account"] = facts(rung.get("receipt") or {})
    sort = "one adapter for" if len(trained) == 1 else "an adapter for each of"
    return {
        "name": result.get("name") or "mixture",
        "verdict": f"{str(result.get('method')).capitalize()}: {sort} {len(tasks)} tasks",
        "model": result.get("model"),
        "command": result.get("command"),
        "tasks": tasks,
        "trained": trained,
        "figures": [
            _measured_figure(f"{task['name']}: {words(task['metric'])}", task) for task in tasks if task["finished"]
        ],
        "cautions": [(task["name"], task["caution"]) for task in tasks if task["caution"]],
        "facts": _how_it_was_made({key: value for key, value in result.items() if key != "tasks"}),
    }


def scale_view(scale: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page of an artifact's strengths shows: each is a rung whose name is its factor."""
    strengths = [_rung({**one, "name": f"× {one['factor']:g}"}) for one in scale["factors"]]
    measured = {**scale, "metric": strengths[0]["metric"]}
    return {
        **{key: scale[key] for key in ("name", "verdict", "model", "command")},
        "metric": words(strengths[0]["metric"]),
        "strengths": strengths,
        "forgetting": pictures.against_forgetting(measured, [one for one in strengths if one["finished"]]),
    }


def sweep_view(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page of a sweep shows."""
    trials, found = sweep["trials"], sweep["best"]
    best = ", ".join(f"{key} {_short(value)}" for key, value in found["params"].items())
    states = [trial["state"] for trial in trials]
    counts = {state: states.count(state) for state in ("finished", "pruned", "failed", "interrupted", "running")}
    figures = [{"label": state, "value": str(count), "note": "trials"} for state, count in counts.items() if count]
    return {
        **{key: sweep[key] for key in ("name", "model", "method", "objectives", "command")},
        "verdict": f"Best of {len(trials)} trials: {best}",
        "figures": figures,
        "keys": [one["key"] for one in sweep["search"]],
        "objective": sweep["objectives"][0],
        "parallel": [search_plots.parallel(sweep, frame) for frame in (search_plots.WIDE, search_plots.NARROW)],
        "importance": search_plots.importance_bars(sweep["importances"]),
        "trials": [_trial(trial, sweep["objectives"]) for trial in trials],
    }


def _trial(trial: Mapping[str, Any], objectives: Sequence[str]) -> dict[str, Any]:
    reached = [trial["values"].get(name) for name in objectives]
    ended = ": ".join(filter(None, (trial["state"], trial["reason"])))
    return {
        **trial,
        "params": [_short(value) for value in trial["params"].values()],
        "reached": reached,
        "ended": ended,
    }


def _short(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def facts(tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A tree of plain values as (words, text) pairs, None left out; a mapping below is a list of such pairs again."""
    known = ((words(key), value) for key, value in tree.items() if value is not None)
    return [(key, facts(value) if isinstance(value, Mapping) else _plain(value)) for key, value in known]


def is_finished(rung: Mapping[str, Any]) -> bool:
    """Whether a rung came to a measured end."""
    return rung.get("status", "finished") == "finished" and is_number(rung.get("value"))


def _rung(rung: Mapping[str, Any]) -> dict[str, Any]:
    """A rung with every field there, and its pictures."""
    name, config = str(rung["name"]), rung.get("config") or {}
    return {
        **dict.fromkeys(_RUNG_FIELDS),
        **rung,
        "name": name,
        "finished": is_finished(rung),
        "status": rung.get("status", "finished"),
        "chosen": bool(rung.get("chosen")),
        "versus": _measurement(rung.get("versus_best")),
        "race": [{"learning_rate": None, "epochs": None, "value": None, **lane} for lane in rung.get("race") or ()],
        "examples": rung.get("examples") or [],
        "settings": facts({key: value for key, value in config.items() if key not in _DRAWN}),
        "importance": pictures.importance(config),
        "heat": _heat(rung.get("confusion")),
        "picture": plots.curve(rung.get("curve") or (), plots.SMALL, name),
    }


def _measurement(measured: object) -> dict[str, Any]:
    """Value, interval and n; a bare number is a measurement without an interval."""
    known = measured if isinstance(measured, Mapping) else {"value": measured}
    return {key: known.get(key) for key in ("value", "low", "high", "n")}


def _metrics(measured: Mapping[str, Any] | None, besides: str | None) -> list[tuple[str, dict[str, Any]]]:
    reported = (measured or {}).get("metrics") or {}
    return [(words(name), _measurement(value)) for name, value in reported.items() if name != besides]


def _quality_figures(climb: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[Figure]:
    """How good the winner is: on the test split where that was measured, else where it was chosen."""
    test, baseline = _measurement(climb.get("test")), _measurement(climb.get("test_baseline"))
    metric, split = words(climb.get("metric")), climb.get("split") or "validation"
    if not is_number(test["value"]):
        yield _measured_figure(f"{metric} on {split}", chosen)
        return
    yield _measured_figure(f"{metric} on test", test)
    if is_number(baseline["value"]):
        gain = amounts.difference(test["value"] - baseline["value"])
        yield Figure("over zero-shot", gain, f"from {amounts.quality(baseline['value'])}")


def _price_figures(rung: Mapping[str, Any]) -> Iterator[Figure]:
    """What a rung costs; what is not known is left out."""
    if is_number(rung["seconds"]):
        yield Figure("to make", amounts.duration(rung["seconds"]), _of_it(rung))
    if is_number(rung["seconds_per_query"]):
        tokens = rung["prompt_tokens_per_query"]
        note = f"{amounts.count(tokens)} prompt tokens" if is_number(tokens) else ""
        yield Figure("a query", amounts.duration(rung["seconds_per_query"]), note)
    if is_number(rung["peak_memory_mb"]):
        yield Figure("peak memory", amounts.memory(rung["peak_memory_mb"]), _left(rung))
    if rung["forgetting_drift"]:
        yield Figure("drift", amounts.quality(rung["forgetting_drift"]), "1 - cosine of general texts' embeddings")
    if rung["forgetting_kl"]:
        bits = rung["forgetting_bits_per_byte"]
        note = f"nats a token, {amounts.difference(bits)} bits per byte" if is_number(bits) else "nats a token"
        yield Figure("forgot", amounts.quality(rung["forgetting_kl"]), note)


def _of_it(rung: Mapping[str, Any]) -> str:
    """What the time went into, and what it cost where an hour has a price."""
    training = f"{amounts.duration(rung['train_seconds'])} of it training" if rung["train_seconds"] else "no training"
    return f"{training}, price {rung['money']:.2f}" if is_number(rung["money"]) else training


def _left(rung: Mapping[str, Any]) -> str:
    """What a rung trained and left behind."""
    if not rung["trainable_parameters"]:
        return "nothing trained"
    trained = f"{amounts.count(rung['trainable_parameters'])} trained"
    return f"{trained}, {amounts.size(rung['artifact_bytes'])} artifact" if rung["artifact_bytes"] else trained


def _measured_figure(label: str, measured: Mapping[str, Any]) -> Figure:
    n = measured.get("n")
    notes = [amounts.interval(measured.get("low"), measured.get("high")), f"{amounts.count(n)} rows" if n else ""]
    return Figure(label, amounts.quality(measured.get("value")), " · ".join(filter(None, notes)))


def _so_far(finished: int) -> str:
    """What is said of a climb that has no verdict yet."""
    return f"Not at its end yet: {finished} rungs measured so far." if finished else "No rung has been finished yet."


def _in_short(rung: Mapping[str, Any]) -> str:
    """A run in one line, for want of a verdict."""
    if not rung["finished"]:
        return str(rung["name"])
    within = amounts.interval(rung["low"], rung["high"])
    return f"{rung['name']}: {words(rung['metric'])} {amounts.quality(rung['value'])}" + (
        f" ({within})" if within else ""
    )


def _heat(confusion: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[int, int]]]]:
    """A confusion matrix row by row: the true label, then how many went to each label and their share in percent."""
    if not confusion:
        return []
    return [
        (str(label), [(number, round(100 * number / (sum(row) or 1))) for number in row])
        for label, row in zip(confusion["labels"], confusion["counts"], strict=False)
    ]


def _side_by_side(finished: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The example outputs of all rungs, brought together by input."""
    together: dict[tuple[str, str], dict[str, Any]] = {}
    for rung in finished:
        for example in rung["examples"]:
            asked, reference = _text(example.get("input")), _text(example.get("reference"))
            entry = together.setdefault((asked, reference), {"input": asked, "reference": reference, "outputs": []})
            output = {"rung": rung["name"], "chosen": rung["chosen"], "text": _text(example.get("output"))}
            entry["outputs"].append({**output, "right": example.get("right")})
    return list(together.values())


def _text(said: object) -> str:
    """An input, reference or output as it stands; several references, each on its own line."""
    if isinstance(said, list | tuple):
        return "\n".join(map(_text, said))
    return "" if said is None else str(said)


def _how_it_was_made(made: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Model, task, data, budget and machine, and what it took."""
    took = {"took": amounts.duration(made.get("seconds"))}
    told = {"model": made.get("model"), **took, **{key: made.get(key) for key in _CIRCUMSTANCES}}
    return facts({key: value for key, value in told.items() if value not in (None, "", {}, amounts.NONE)})


def _plain(value: object) -> str:
    """A value as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else amounts.NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{words(key)} {_plain(item)}" for key, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = [_plain(item) for item in value]
        return ("; " if any(", " in item for item in items) else ", ").join(items)
    return amounts.NONE if value is None else str(value)

"""When a climb stops and what it chooses, worked out in sight on rows that are right (1) or wrong (0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tunesmith.core.config import Forgetting, Project, resolve
from tunesmith.core.records import Score
from tunesmith.metrics._measure import measure
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._rules import best, choose_rung, reason_to_stop, versus, without_gain
from tunesmith.recipes._rungs import Tried

N = 100


def tried(name: str, scores: Sequence[Score], metric: str = "accuracy") -> Tried:
    one = measure(metric, scores)
    outcome = Outcome(name, metric=metric, value=one.value, low=one.low, high=one.high, n=one.n)
    return Tried(outcome, tuple(scores))


def rung(name: str, wrong: Sequence[int]) -> Tried:
    """A rung that answers 100 rows, those at the places `wrong` wrongly."""
    return tried(name, [Score(float(place not in wrong)) for place in range(N)])


def climbed(**wrong: Sequence[int]) -> dict[str, Tried]:
    return {name: rung(name, places) for name, places in wrong.items()}


def nats(name: str, each: float) -> Tried:
    """A rung of a chat task: every row 10 tokens of so many nats, so the perplexity is exp(each); lower is better."""
    return tried(name, [Score(10 * each + 0.01 * (place % 5), weight=10.0) for place in range(N)], "perplexity")


def project(**keys: Any) -> Project:
    plain = {"model": "toy", "task": "classification", "data": {"train": "rows.csv"}}
    return resolve({**plain, **keys})


def test_the_cheapest_rung_that_is_not_worse_is_chosen() -> None:
    # 90 against 88 right, wrong on different rows: of 100 rows 10 speak for one and 12 for the other, which is noise.
    even = climbed(zero_shot=range(40), few_shot=range(50, 62), lora=range(10))
    assert best(even).outcome.name == "lora"
    assert choose_rung(even, Forgetting()) == "few_shot"
    # 70 against 90: zero_shot is wrong wherever lora is, and on 20 rows more.
    assert choose_rung(climbed(zero_shot=range(30), lora=range(10)), Forgetting()) == "lora"


def test_rungs_are_compared_row_by_row() -> None:
    # 90 and 84 right: two intervals of ±0.06 and ±0.07 overlap widely. But the second is wrong on the same 10 rows and
    # on 6 more, and never right where the first is wrong: drawn again and again, 6 rows in 100 are hardly ever none.
    first, second = rung("zero_shot", range(16)), rung("lora", range(10))
    assert first.outcome.high is not None
    assert second.outcome.low is not None
    assert first.outcome.high > second.outcome.low
    assert versus(second, first).worse
    assert choose_rung({"zero_shot": first, "lora": second}, Forgetting()) == "lora"


def test_a_dearer_rung_that_is_no_better_is_not_chosen() -> None:
    assert choose_rung(climbed(zero_shot=range(10), few_shot=range(10), lora=range(10)), Forgetting()) == "zero_shot"
    assert choose_rung(climbed(zero_shot=range(10), lora=range(60)), Forgetting()) == "zero_shot"


def test_of_rungs_as_good_one_that_forgets_no_more_than_asked_is_chosen() -> None:
    even = climbed(zero_shot=range(40), bitfit=range(50, 62), lora=range(10))
    even["bitfit"].outcome.forgetting_kl, even["lora"].outcome.forgetting_kl = 0.3, 0.1
    assert choose_rung(even, Forgetting()) == "bitfit"
    assert choose_rung(even, Forgetting(max_kl=0.2)) == "lora"
    assert choose_rung(even, Forgetting(max_kl=0.05)) == "bitfit"  # none is inside: as if nothing had been asked
    even["lora"].outcome.forgetting_bits_per_byte = 0.2
    assert choose_rung(even, Forgetting(max_kl=0.2, max_drop=0.1)) == "bitfit"


def test_where_lower_is_better_the_lowest_is_best() -> None:
    both = {"zero_shot": nats("zero_shot", 2.0), "lora": nats("lora", 1.5)}
    assert best(both).outcome.name == "lora"
    assert choose_rung(both, Forgetting()) == "lora"
    assert choose_rung({"zero_shot": nats("zero_shot", 1.5), "lora": nats("lora", 2.0)}, Forgetting()) == "zero_shot"


def test_there_is_reason_to_go_on() -> None:
    assert reason_to_stop(project(), {}, left=1.0) == ""
    assert reason_to_stop(project(), climbed(zero_shot=range(40)), left=1.0) == ""


def test_the_target_is_met_by_the_lower_end_of_the_interval() -> None:
    lucky = climbed(zero_shot=range(40), lora=range(13))  # 0.87, from about 0.80 on
    assert lucky["lora"].outcome.low == pytest.approx(0.80, abs=0.015)
    assert reason_to_stop(project(target=0.85), lucky, left=1.0) == ""
    assert reason_to_stop(project(target=0.75), lucky, left=1.0) == "not needed: lora meets the target of 0.75"


def test_where_lower_is_better_the_target_is_met_by_the_upper_end() -> None:
    read = {"zero_shot": nats("zero_shot", 2.0)}  # perplexity 7.4
    assert reason_to_stop(project(target=7.0), read, left=1.0) == ""
    assert reason_to_stop(project(target=9.0), read, left=1.0) == "not needed: zero_shot meets the target of 9"


def test_two_trained_rungs_in_a_row_without_gain_end_the_climb() -> None:
    once = climbed(zero_shot=range(30), bitfit=range(30))
    assert without_gain(once) == 1
    assert reason_to_stop(project(), once, left=1.0) == ""
    twice = once | climbed(lora=range(29))
    assert without_gain(twice) == 2
    told = "not needed: 2 trained rungs in a row brought nothing beyond noise"
    assert reason_to_stop(project(), twice, left=1.0) == told


def test_a_gain_begins_the_count_anew() -> None:
    assert without_gain(climbed(zero_shot=range(30), bitfit=range(30), lora=range(5))) == 0
    assert without_gain(climbed(zero_shot=range(30), bitfit=range(5), lora=range(5))) == 1


def test_gain_is_over_the_best_before_and_not_the_last() -> None:
    # lora is far better than bitfit, which broke the model, but no better than the prompt.
    assert without_gain(climbed(few_shot=range(10), bitfit=range(80), lora=range(10))) == 2


def test_soft_prompts_and_prompts_do_not_count() -> None:
    assert without_gain(climbed(zero_shot=range(30), few_shot=range(30), prompt_tuning=range(60))) == 0
    weak = climbed(zero_shot=range(30), prompt_tuning=range(60), bitfit=range(30))
    assert without_gain(weak) == 1
    assert without_gain(climbed(zero_shot=range(30), bitfit=range(30), prompt_tuning=range(60), lora=range(30))) == 2


def test_the_first_rung_of_all_is_no_failure() -> None:
    assert without_gain(climbed(lora=range(50))) == 0
    assert without_gain({}) == 0


def test_a_spent_budget_ends_the_climb_once_there_is_something_to_choose() -> None:
    spent = project(budget={"minutes": 3})
    assert reason_to_stop(spent, climbed(zero_shot=range(40)), left=0.0) == "no time left of 3 minutes"
    assert reason_to_stop(spent, {}, left=-1.0) == ""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Score
from tunesmith.metrics import _measure, accuracy
from tunesmith.metrics._measure import compare, measure


def answers(right: int, wrong: int) -> list[Score]:
    return [Score(1.0, prediction="yes", references=("yes",))] * right + [
        Score(0.0, prediction="yes", references=("no",))
    ] * wrong


def test_interval_of_a_share_is_near_the_normal_one() -> None:
    found = measure("accuracy", answers(320, 80))
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)  # 0.0392
    assert found.value == 0.8
    # A bootstrap of 2,000 resamples knows its ends to about a tenth of their distance.
    assert found.low == pytest.approx(0.8 - half, abs=0.004)
    assert found.high == pytest.approx(0.8 + half, abs=0.004)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        right = int(random.binomial(120, 0.7))
        found = measure("accuracy", answers(right, 120 - right), seed=int(random.integers(1 << 30)))
        held += found.low <= 0.7 <= found.high
    assert 0.89 <= held / 200 <= 0.99


@pytest.mark.parametrize("right", [0, 50])
def test_all_right_or_all_wrong_gives_wilsons_interval_and_a_caution(right: int) -> None:
    found = measure("accuracy", answers(right, 50 - right))
    away = 1.959964**2 / (50 + 1.959964**2)  # Wilson's bound at 0 of 50: 0.0713
    assert found.value == right / 50
    assert (found.low, found.high) == pytest.approx((1 - away, 1.0) if right else (0.0, away))
    assert "saturated" in found.caution
    assert "n=50 is small" in found.caution


def test_small_tests_say_so_with_their_half_width() -> None:
    found = measure("accuracy", answers(30, 10))
    assert found.caution == f"n=40 is small: ±{(found.high - found.low) / 2:.2g}"
    assert measure("accuracy", answers(80, 20)).caution == ""


def test_one_row_does_not_promise_certainty() -> None:
    found = measure("token_f1", [Score(0.5, prediction="red house", references=("red boat",))])
    assert found.value == 0.5
    assert found.high - found.low > 0.8


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = answers(60, 40)
    whole = measure("accuracy", scores)
    monkeypatch.setattr(_measure, "_CHUNK", 700)
    assert measure("accuracy", scores) == whole


def test_pairing_sees_a_gain_that_two_intervals_would_hide() -> None:
    first, second = answers(300, 200), answers(312, 188)
    found = compare("accuracy", first, second)
    assert found.value == pytest.approx(0.024)
    assert found.better
    apart = measure("accuracy", first), measure("accuracy", second)
    assert apart[0].high > apart[1].low


def test_equal_outputs_differ_by_nothing_but_not_for_certain() -> None:
    scores = answers(70, 30)
    found = compare("accuracy", scores, scores)
    assert found.value == 0.0
    assert not found.better
    assert not found.worse
    assert 0 < found.high < 0.1
    assert found.low == -found.high


def test_both_saturated_is_told() -> None:
    assert "saturated" in compare("accuracy", answers(200, 0), answers(200, 0)).caution
    assert compare("accuracy", answers(199, 1), answers(200, 0)).caution == ""


def test_lower_is_better_is_turned_round() -> None:
    first = [Score(30.0, weight=10.0), Score(20.0, weight=10.0)] * 60
    second = [Score(20.0, weight=10.0), Score(15.0, weight=10.0)] * 60
    found = compare("perplexity", first, second)
    assert found.value == pytest.approx(math.exp(2.5) - math.exp(1.75))
    assert found.better


def test_no_rows_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="accuracy: got no rows"):
        measure("accuracy", [])


def test_not_a_number_is_a_mistake_that_counts_the_rows() -> None:
    with pytest.raises(Mistake, match="2 of 3 rows scored no finite number"):
        measure("perplexity", [Score(1.0), Score(math.nan), Score(math.inf)])


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(Mistake, match="did you mean 'accuracy'"):
        measure("acuracy", answers(1, 1))


def test_sides_of_different_length_are_a_bug() -> None:
    with pytest.raises(ValueError, match="same rows"):
        compare("accuracy", answers(2, 0), answers(3, 0))


def test_ten_thousand_rows_take_about_a_second() -> None:
    started = time.process_time()
    measure("accuracy", answers(6_000, 4_000))
    assert time.process_time() - started < 4


def test_a_score_judged_elsewhere_counts_by_its_value_and_weight() -> None:
    rows = accuracy.statistics([Score(1.0, weight=3.0), Score(0.0)])
    assert accuracy.aggregate(rows.sum(axis=0, keepdims=True))[0] == 0.75


def test_it_reads_well() -> None:
    text = str(measure("accuracy", answers(30, 10)))
    assert text.startswith("accuracy 0.750 [0.")
    assert text.endswith(")")


@pytest.mark.parametrize(("often", "told"), [(180, ""), (181, "90 % of the rows"), (190, "95 % of the rows")])
def test_nearly_one_label_only_is_said(often: int, told: str) -> None:
    scores = [Score(1.0, prediction="ham", references=("ham",))] * often
    scores += [Score(0.0, prediction="ham", references=("spam",))] * (200 - often)
    caution = measure("accuracy", scores).caution
    assert caution.startswith(told)
    assert ("macro F1" in caution) == bool(told)
    # Nine in ten right, and yet: F1 of ham is 2 * 190 / (2 * 190 + 10), of spam 0.
    assert measure("f1", scores).value == pytest.approx(often / (often + 200))


def test_a_label_that_nearly_all_sets_have_is_said() -> None:
    rows = [("film", "paris")] * 15 + [("film",)] * 15
    assert "100 % of the rows are film" in measure("f1_micro", [Score(1.0, 1.0, row, (row,)) for row in rows]).caution
    rows = [("film", "paris"), ("film",), ("rome",)] * 10
    assert "of the rows are" not in measure("f1_micro", [Score(1.0, 1.0, row, (row,)) for row in rows]).caution

"""The data check: every fault planted is found, by place, and no text of the data is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tunesmith.core.records import Chat, Labelled, Message, Record
from tunesmith.data._check import Report, check
from tunesmith.data._content import everything
from tunesmith.data._findings import Finding
from tunesmith.data._row import Problem

SECRET = "anna.lee@example.org"


def plain(number: int, label: str = "", split: str = "train") -> Labelled:
    """A row that is like no other."""
    words = " ".join(f"w{(number * 7919 + place * 104729) % 99991}" for place in range(8))
    return Labelled(words, label or ("a", "b")[number % 2], source=f"{split}.csv:{number + 2}")


def words(rows: Sequence[Record]) -> list[int]:
    return [len(everything(row).split()) for row in rows]


def finding(report: Report, part: str) -> Finding:
    (found,) = [one for one in report.findings if part in one.says]
    return found


GOOD = {
    "train": [plain(n) for n in range(1200)],
    "test": [plain(n, split="test") for n in range(2000, 2300)],
}


def test_good_data_has_nothing_but_fine_findings() -> None:
    report = check(GOOD, labels=("a", "b"), measure=words, max_length=64)
    assert {one.severity for one in report.findings} == {"fine"}
    assert [one.says for one in report.findings] == [
        "every row can be read and none is empty",
        "no row stands in two splits, not even nearly",
        "labels are balanced enough: the most frequent, a, is 50% of all",
        "no row repeats another, exactly or nearly",
        "1,200 rows to train on",
        "every row fits: the longest has 9 of 64 tokens",
        "nothing looks like an e-mail address, a phone number or a card number",
    ]
    assert report.rows == {"train": 1200, "test": 300}
    assert report.labels["train"] == {"a": 600, "b": 600}


def test_lengths_are_counted_in_doubling_bins_with_the_tokenizer_given() -> None:
    rows = [Labelled("x" * length) for length in (1, 16, 17, 32, 33, 100)]
    lengths = check({"train": rows}, measure=lambda some: [len(row.input) for row in some], max_length=32).lengths[
        "train"
    ]
    assert lengths.histogram == ((1, 16, 2), (17, 32, 2), (33, 64, 1), (65, 128, 1))
    assert (lengths.shortest, lengths.median, lengths.longest, lengths.total) == (1, 24, 100, 199)
    assert (lengths.unit, lengths.over, lengths.max_length) == ("tokens", 2, 32)


def test_rows_are_measured_a_few_at_a_time_and_none_twice() -> None:
    seen: list[int] = []

    def measure(some: Sequence[Record]) -> list[int]:
        seen.append(len(some))
        return [1] * len(some)

    assert check({"train": [plain(n) for n in range(600)]}, measure=measure).lengths["train"].total == 600
    assert seen == [256, 256, 88]


def test_a_row_is_as_long_as_all_its_texts() -> None:
    rows: list[Record] = [Labelled("q", "a", context="c"), Chat((Message("user", "hi"), Message("assistant", "ho")))]
    lengths = check({"train": rows}).lengths["train"]
    assert (lengths.shortest, lengths.longest) == (2, 3)


def test_without_a_tokenizer_words_are_counted_and_it_is_told() -> None:
    report = check(GOOD, max_length=4)
    assert report.lengths["train"].unit == "words"
    assert finding(report, "lengths are in words").severity == "caution"
    assert finding(report, "longer than max_length").says == "at least 1,500 rows are longer than max_length (4)"


def test_bad_rows_are_told_by_kind_and_place() -> None:
    problems = [
        Problem("a.csv:7", "", "broken JSON"),
        Problem("a.csv:9", "text", "empty", "empty"),
        Problem("a.csv:11", "label", "not in the list", "label"),
        Problem("a.csv:12", "label", "not in the list", "label"),
    ]
    report = check(GOOD, labels=("a", "b"), problems=problems)
    assert finding(report, "malformed").says == "1 row is malformed: a.csv:7"
    assert finding(report, "empty").says == "1 row is empty where text is needed: a.csv:9"
    assert finding(report, "not in the list").says.endswith("a.csv:11, a.csv:12")
    assert [one.severity for one in report.findings[:3]] == ["problem"] * 3
    assert report.as_dict()["problems"]["rows"] == 4


def test_leaks_are_found_exactly_and_nearly_also_under_another_answer() -> None:
    leaked = Labelled(GOOD["train"][3].input.upper(), "b", source="test.csv:900")
    words = f"{GOOD['train'][5].input} and {GOOD['train'][6].input}"
    long, near = Labelled(words, "a", source="train.csv:9000"), Labelled(f"{words} too", "b", source="test.csv:901")
    report = check({"train": [*GOOD["train"], long], "test": [*GOOD["test"], leaked, near]}, labels=())
    assert report.leaks == (("train.csv:5", "test.csv:900"),)
    assert finding(report, "in several splits, where").severity == "problem"
    assert report.near_leaks == (("train.csv:9000", "test.csv:901"),)
    assert not [one for one in report.findings if "no row stands in two splits" in one.says]


def test_two_leaks_that_are_like_each_other_are_told_once() -> None:
    words = f"{GOOD['train'][5].input} and {GOOD['train'][6].input}"
    rows = {split: [Labelled(words, "a", source=split), Labelled(f"{words} too", "a")] for split in ("train", "test")}
    report = check(rows, labels=())
    assert (len(report.leaks), report.near_leaks) == (2, ())


def test_repeats_and_contradictions() -> None:
    again = Labelled(GOOD["train"][0].input, "a", source="train.csv:9000")
    against = Labelled(GOOD["train"][1].input, "a", source="train.csv:9001")
    report = check({"train": [*GOOD["train"], again, against]}, labels=())
    assert report.duplicates == (("train.csv:2", "train.csv:9000"),)
    assert report.conflicts == (("train.csv:3", "train.csv:9001"),)
    assert finding(report, "labelled differently").severity == "caution"
    many = check({"train": [*GOOD["train"][:100], against]}, labels=())
    assert finding(many, "labelled differently").severity == "problem"


def test_two_texts_written_on_one_input_are_no_contradiction() -> None:
    rows = [Labelled("the same dialogue", "one summary"), Labelled("the same dialogue", "another")]
    assert check({"train": rows}).conflicts == ()


def test_labels_that_are_rare_lopsided_missing_or_new() -> None:
    train = [plain(n, "a") for n in range(300)] + [plain(n, "rare") for n in range(300, 305)]
    test = [plain(n, "new", "test") for n in range(400, 403)]
    report = check({"train": train, "test": test}, labels=("a", "rare", "never"))
    assert finding(report, "labels that train has not").says == "test has labels that train has not: new"
    assert finding(report, "no training row is labelled").says == "no training row is labelled never"
    assert finding(report, "fewer than 10 training rows").says.endswith("rare (5)")
    assert finding(report, "times as frequent").says == "a is 60 times as frequent as rare (98% of all)"


def test_entities_are_counted_by_kind_and_labels_of_a_set_each() -> None:
    tagged = Labelled("Anna Lee", tokens=("Anna", "Lee"), tags=("B-person", "I-person"))
    assert check({"train": [tagged]}).labels == {"train": {"person": 1}}
    several = Labelled("x", "a", outputs=("a", "b"))
    assert check({"train": [several]}, labels=()).labels == {"train": {"a": 1, "b": 1}}
    assert check({"train": [several]}).labels == {}


@pytest.mark.parametrize(
    ("rows", "expect"), [(50, "shots in the prompt often do as well"), (500, "a small adapter to gain something")]
)
def test_few_examples_are_told_what_to_expect(rows: int, expect: str) -> None:
    assert expect in finding(check({"train": GOOD["train"][:rows]}), "fewer than 1,000").says


def test_a_small_test_says_how_much_it_can_tell() -> None:
    # 1.96 * sqrt(0.25 / 40) = 0.155
    report = check({"train": GOOD["train"], "test": GOOD["test"][:40]})
    assert finding(report, "40 rows in test").says.endswith("known to about ±15 points")


def test_languages_of_inputs_and_of_free_outputs() -> None:
    english = "The quick brown fox jumps over the lazy dog while number {} is looking on in wonder."
    german = "Zwei junge Männer sind im Freien in der Nähe vieler Büsche und Nummer {} sieht zu."
    rows = [Labelled(english.format(n), german.format(n)) for n in range(20)]
    rows += [Labelled(german.format(n), german.format(n)) for n in range(20, 24)]
    report = check({"train": rows})
    assert report.languages == {"input": {"en": 20, "de": 4}, "output": {"de": 24}}
    said = finding(report, "mostly en")
    assert said.says == "the input is mostly en (83% of those long enough to tell), and also de 16.7%"
    assert report.copies == 4
    assert finding(report, "the same as the input").severity == "caution"


def test_passages_asked_about_on_both_sides_are_told() -> None:
    train, test = [Labelled("Who?", "Anna", context="Anna sang.")], [Labelled("What?", "sang", context="Anna sang.")]
    report = check({"train": train, "test": test})
    assert report.shared_contexts == 1
    assert finding(report, "passages are asked about").severity == "caution"


def test_the_report_is_json_and_tells_no_text_of_the_data() -> None:
    rows = [Labelled(f"write to {SECRET} now", "a", source="a.csv:2"), *GOOD["train"][:50]]
    report = check({"train": rows}, labels=(), notes=("read as csv",))
    assert report.personal == {"e-mail": 1, "phone": 0, "card": 0}
    assert finding(report, "personal data").says.endswith("e-mail in 1 row")
    told: Any = json.dumps(report.as_dict()) + str(report)
    assert SECRET not in told
    assert GOOD["train"][0].input not in told
    assert json.loads(json.dumps(report.as_dict()))["findings"][0]["severity"] in {"problem", "caution", "fine"}


def test_places_are_written_out_twenty_at_a_time_and_counted_whole() -> None:
    rows = [Labelled("the same", "a", source=f"a.csv:{n}") for n in range(50)]
    told = check({"train": rows}, labels=()).as_dict()["duplicates"]
    assert (told["groups"], told["rows"], len(told["first"][0])) == (1, 50, 20)

from __future__ import annotations

import base64
import copy
import hashlib
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tunesmith.core.errors import Mistake
from tunesmith.evaluation.report import table, write_mixture_report, write_report, write_run_report

VOID = {"meta", "input", "br", "hr", "link", "img"}


class Page(HTMLParser):
    """The elements of a page, its text and its script; complains about a tag that is not closed where it should be."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.script = ""
        self._open: list[str] = []
        self.feed(markup)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += "" if tag == "b" else " "
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.script += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    def count(self, wanted: str) -> int:
        return sum(tag == wanted for tag, _ in self.elements)


def rung(name: str, value: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "metric": "accuracy",
        "value": value,
        "low": value - 0.04,
        "high": value + 0.04,
        "n": 500,
        "train_seconds": 0.0,
        "seconds": seconds,
        "seconds_per_query": 0.021,
        "prompt_tokens_per_query": 41,
        "peak_memory_mb": 812.0,
        "trainable_parameters": 0,
        "artifact_bytes": 0,
        "money": None,
        "forgetting_kl": 0.0,
        "forgetting_bits_per_byte": 0.0,
        "chosen": False,
        "status": "finished",
        "reason": "",
        "caution": "",
        "config": {"shots": 0},
        "curve": [],
        "race": [],
        "versus_best": {"value": value - 0.836, "low": value - 0.88, "high": value - 0.8},
        "confusion": {"labels": ["negative", "positive"], "counts": [[91, 159], [30, 220]]},
        "examples": [{"input": "A waste of a cast.", "reference": "negative", "output": "positive", "right": False}],
        **more,
    }


def lora() -> dict[str, Any]:
    steps = range(1, 61)
    return rung(
        *("lora", 0.836, 318.0),
        train_seconds=212.0,
        trainable_parameters=4_884_480,
        artifact_bytes=19_600_000,
        forgetting_kl=0.048,
        forgetting_bits_per_byte=0.0123,
        chosen=True,
        caution="500 rows leave ±0.03.",
        curve=[{"step": n, "loss": 1 / n, **({"validation": 0.5} if n % 10 == 0 else {})} for n in steps],
        race=[{"learning_rate": 5e-4, "epochs": 1, "value": 0.83}],
        config={"method": {"name": "lora", "r": 16}},
    )


def climb() -> dict[str, Any]:
    skipped = {"name": "full", "status": "skipped", "reason": "needs 2.3 GB", "chosen": False}
    measured = {
        "accuracy": {"value": 0.831},
        "macro_f1": {"value": 0.8304, "low": 0.807, "high": 0.852},
        "matthews": 0.662,
    }
    return {
        "name": "movie-reviews",
        "task": "classification",
        "metric": "accuracy",
        "model": "smollm2",
        "split": "validation",
        "target": 0.85,
        "stopped": "the budget is spent",
        "seconds": 702,
        "verdict": "lora is worth its five minutes.",
        "command": "tunesmith generate --artifact runs/x 'text'",
        "budget": {"minutes": 12, "price_per_hour": None},
        "machine": {"cores": 2},
        "data": {"version": "9f2c41", "train": 8484, "validation": 1060, "test": 1061},
        "test": {"metric": "accuracy", "value": 0.831, "low": 0.808, "high": 0.853, "n": 1061, "metrics": measured},
        "test_baseline": {"metric": "accuracy", "value": 0.617, "low": 0.588, "high": 0.646, "n": 1061},
        "rungs": [rung("zero_shot", 0.622, 14.0), rung("few_shot", 0.764, 96.0), lora(), skipped],
        "receipt": {"trained_tokens": 16968, "masks": {"assistant_turns": 8484}},
    }


def run_result() -> dict[str, Any]:
    whole = climb()
    about = {key: whole[key] for key in ("task", "model", "command", "receipt", "data", "machine")}
    return {**whole["rungs"][2], **about, "name": "by-hand", "metrics": whole["test"]["metrics"]}


def mixture_result() -> dict[str, Any]:
    whole = climb()
    films = rung("films", 0.81, 9.0, share=0.75, passes=1.0, metrics=whole["test"]["metrics"])
    notes = rung("notes", 0.34, 9.0, share=0.25, passes=2.5, metric="rouge_l", caution="n=20 is small: ±0.04")
    about = {key: whole[key] for key in ("model", "command", "data", "machine")}
    return {**about, "name": "both", "method": "lora", "tasks": [films, notes], "trained": [lora()]}


WRITERS: dict[Callable[[Path, Any], Path], Callable[[], dict[str, Any]]] = {
    write_report: climb,
    write_run_report: run_result,
    write_mixture_report: mixture_result,
}
"""What writes a page, and what such a page is written of."""


def written(folder: Path, told: dict[str, Any]) -> Page:
    return Page(write_report(folder, told).read_text(encoding="utf-8"))


def test_the_page_says_what_was_found_and_what_it_cost(tmp_path: Path) -> None:
    text = " ".join(written(tmp_path, climb()).text.split())
    for said in (
        "lora is worth its five minutes.",
        *("0.831", "0.808 to 0.853 · 1,061 rows", "+0.214", "from 0.617", "macro f1 0.830", "matthews 0.662"),
        *("5 min 18 s", "3 min 32 s", "21 ms", "41 prompt tokens", "4.9 M trained, 20 MB artifact", "0.048"),
        "tunesmith generate --artifact runs/x 'text'",
        "lora 500 rows leave ±0.03.",
        "skipped: needs 2.3 GB",
        "Worth their time to make: zero_shot, few_shot, lora.",
        *("trained tokens 16,968", "version 9f2c41", "the budget is spent", "0.0005"),
        *("A waste of a cast.", "36 %", "64 %"),
    ):
        assert said in text, said
    assert text.count("0.831") == 1, "the main metric is not told again among the others"
    assert "price" not in text, "nobody asked for a price"


def test_a_price_is_shown_where_an_hour_has_one(tmp_path: Path) -> None:
    told = climb()
    told["rungs"][2]["money"] = 0.125
    text = written(tmp_path, told).text
    assert "price 0.12" in text
    assert "0.12" in text.split("The rungs")[1]


@pytest.mark.parametrize("write", WRITERS)
def test_the_page_is_one_file_that_asks_for_nothing(write: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    markup = write(tmp_path, WRITERS[write]()).read_text(encoding="utf-8")
    page = Page(markup)
    assert not re.search(r"https?:|url\(|@import|\ssrc=|\shref=", markup)
    assert not {"link", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    policy = next(attributes["content"] or "" for _, attributes in page.elements if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode() in policy


HOSTILE = """</script></style><script>alert(1)</script><b onclick="x">'"&<"""


def poisoned(value: Any, key: str = "") -> Any:
    """The same tree with something hostile before every text, and as a key where the keys are the user's."""
    if isinstance(value, dict):
        return {(HOSTILE + k if key in {"masks", "metrics"} else k): poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE + value if isinstance(value, str) and value and key != "status" else value


@pytest.mark.parametrize("write", WRITERS)
def test_text_from_the_data_never_becomes_markup(write: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    told = WRITERS[write]()
    clean = Page(write(tmp_path, told).read_text(encoding="utf-8"))
    page = Page(write(tmp_path, poisoned(told)).read_text(encoding="utf-8"))
    assert page.count("script") == 1
    assert page.script == clean.script
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    assert not any("onclick" in attributes for _, attributes in page.elements)


def test_pictures_are_told_to_those_who_do_not_see_them(tmp_path: Path) -> None:
    page = written(tmp_path, climb())
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 2 * 3 + 2 + 1, "three costs and forgetting, each wide and narrow, and one learning curve"
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert "lora: accuracy 0.836 (0.796 to 0.876), time to make 5 min 18 s, chosen" in (pictures[0]["aria-label"] or "")


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"name": "early", "rungs": []},
        {"rungs": [{"name": "zero_shot", "status": "interrupted", "value": None}]},
        {"rungs": [{"name": "zero_shot", "value": 0.5}]},
        {"rungs": [{"name": "lora", "value": math.nan, "curve": [{"step": 1, "loss": math.nan}], "chosen": True}]},
        {"metric": "accuracy", "rungs": [{"name": "a", "value": 0.5, "low": math.nan, "high": None, "seconds": 0.0}]},
        {"test": None, "target": None, "rungs": [{"name": "a", "value": 1.0, "seconds": 1.0, "chosen": True}]},
    ],
)
def test_what_is_not_known_is_left_out(told: dict[str, Any], tmp_path: Path) -> None:
    text = written(tmp_path, told).text
    assert not re.search(r"\b(nan|None|inf)\b", text)
    Console(width=80, file=io.StringIO()).print(table(told))


def test_cautions_and_notes_are_told_wherever_they_come_from(tmp_path: Path) -> None:
    told = climb()
    told["test"]["caution"] = "1061 of 1061 right: saturated."
    told["rungs"][2]["reason"] = "stopped early at step 40"
    told["data"]["notes"] = ["12 rows had no label, dropped", "input is text"]
    text = written(tmp_path, told).text
    for said in ("saturated.", "stopped early at step 40", "12 rows had no label, dropped; input is text"):
        assert said in text, said


def test_a_climb_on_its_way_says_how_far_it_is(tmp_path: Path) -> None:
    assert "Not at its end yet: 3 rungs measured so far." in written(tmp_path, {**climb(), "verdict": ""}).text
    assert "No rung has been finished yet." in written(tmp_path, {}).text


def test_a_run_shows_its_metrics_curve_and_receipt(tmp_path: Path) -> None:
    page = Page(write_run_report(tmp_path, run_result()).read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for said in (
        "by-hand: accuracy 0.836 (0.796 to 0.876)",
        "macro f1 0.830",
        "5 min 18 s",
        "trained tokens 16,968",
        "r 16",
    ):
        assert said in text, said
    assert page.count("polyline") == 2 * 3, "raw, smoothed and validation loss, wide and narrow"


def test_a_mixture_shows_each_task_by_its_own_metric(tmp_path: Path) -> None:
    page = Page(write_mixture_report(tmp_path, mixture_result()).read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for said in (
        "Lora: one adapter for 2 tasks",
        "films: accuracy 0.810",
        "notes: rouge l 0.340",
        "films accuracy 0.810",
        "macro f1 0.830",
        "500 75 %",
        "25 % 2.5",
        "notes n=20 is small",
        "forgot 0.048 nats a token",
        "Outputs of notes",
    ):
        assert said in text, said
    unmeasured = {"name": "films", "share": 1.0, "passes": 1.0}
    page = Page(write_mixture_report(tmp_path, {"name": "x", "tasks": [unmeasured]}).read_text(encoding="utf-8"))
    assert "films not measured" in " ".join(page.text.split())


@pytest.mark.parametrize("told", [{}, {"name": "x", "curve": [{"step": 1, "loss": 2.0}]}, {"value": 0.5}])
def test_a_run_that_knows_little_has_a_page_too(told: dict[str, Any], tmp_path: Path) -> None:
    assert "Tunesmith" in Page(write_run_report(tmp_path, told).read_text(encoding="utf-8")).text


def test_several_references_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    told = climb()
    told["rungs"] = told["rungs"][:1]
    told["rungs"][0]["examples"] = [{"input": "a", "reference": ["one, two", "three"], "output": "b", "right": 0.25}]
    page = written(tmp_path, told)
    assert "one, two\nthree" in page.text
    assert "0.250" in page.text


def test_the_table_fits_a_terminal_and_names_what_was_skipped() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table(climb()))
    lines = console.export_text().splitlines()
    assert re.match(r"  rung +accuracy +to make +memory +artifact +a query +forgot", lines[0])
    assert re.match(r"→ lora +0\.836 ±0\.040 +5 min 18 s +812 MB +20 MB +21 ms +0\.048", lines[3])
    assert lines[4].strip() == "full skipped: needs 2.3 GB"
    assert "price" not in lines[0]


def test_the_climb_is_left_as_it_was(tmp_path: Path) -> None:
    told = climb()
    before = copy.deepcopy(told)
    write_report(tmp_path, told)
    assert told == before


def test_a_folder_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Mistake, match="cannot be written"):
        write_report(tmp_path / "file" / "run", climb())


@pytest.mark.browser
def test_the_script_runs_under_the_policy_of_its_own_page(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "no Chromium found; install it or leave the browser mark out"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    page = write_report(tmp_path, climb())
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = Page(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    button = next(attributes for tag, attributes in shown.elements if tag == "button")
    assert "hidden" not in button

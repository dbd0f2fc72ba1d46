"""The general prompts and passages that forgetting is measured on: whole, varied, short, and nothing twice."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.records import read_jsonl

ROOM = Path(tunesmith.__file__).parent / "evaluation"
PUBLIC_DOMAIN = {"Lincoln", "Austen", "Melville", "Carroll", "Dickens", "Declaration"}


def _rows(name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(ROOM / name))


PROMPTS = _rows("general_prompts.jsonl")
TEXTS = _rows("general_text.jsonl")
REPLAYED = _rows("replay_prompts.jsonl")


def _words(text: str) -> list[str]:
    """Words, each Chinese character one of its own: there are no spaces to count there."""
    return re.findall(r"[一-鿿]|[^\W一-鿿]+(?:['’-]\w+)*", text.lower())


def _grams(text: str, n: int = 8) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def test_there_are_64_prompts_of_5_to_60_words() -> None:
    assert len(PROMPTS) == 64
    assert all(set(row) == {"prompt", "kind"} for row in PROMPTS)
    lengths = {row["prompt"]: len(_words(row["prompt"])) for row in PROMPTS}
    assert {prompt: length for prompt, length in lengths.items() if not 5 <= length <= 60} == {}


def test_no_kind_of_prompt_outweighs_the_others() -> None:
    kinds = Counter(row["kind"] for row in PROMPTS)
    assert len(kinds) >= 20
    assert all(2 <= count <= 5 for count in kinds.values()), kinds


def test_there_are_24_passages_of_400_to_900_characters_and_16_to_18_kilobytes_in_all() -> None:
    assert len(TEXTS) == 24
    assert all(set(row) == {"text", "kind", "source"} for row in TEXTS)
    assert {row["kind"]: len(row["text"]) for row in TEXTS if not 400 <= len(row["text"]) <= 900} == {}
    assert 16_000 <= sum(len(row["text"].encode()) for row in TEXTS) <= 18_000


def test_the_registers_differ_and_only_the_novels_share_one() -> None:
    kinds = Counter(row["kind"] for row in TEXTS)
    assert {kind for kind, count in kinds.items() if count > 1} == {"novel"}
    assert {"code", "poem", "legal", "german", "french", "spanish"} <= set(kinds)


def test_every_passage_says_whose_it_is() -> None:
    borrowed = [row["source"] for row in TEXTS if row["source"] != "written for Tunesmith"]
    assert len(borrowed) == 6
    assert all(re.fullmatch(r"public domain: .+, 1[78]\d\d", source) for source in borrowed)
    assert all(any(name in source for source in borrowed) for name in PUBLIC_DOMAIN)


def test_what_is_trained_on_is_not_what_is_measured_on() -> None:
    assert 90 <= len(REPLAYED) <= 128
    assert all(set(row) == {"prompt", "kind"} for row in REPLAYED)
    measured = set().union(*(_grams(row["prompt"], 6) for row in PROMPTS))
    assert [row["prompt"] for row in REPLAYED if _grams(row["prompt"], 6) & measured] == []


@pytest.mark.parametrize(
    ("rows", "key"), [(PROMPTS, "prompt"), (REPLAYED, "prompt"), (TEXTS, "text")], ids=["prompts", "replayed", "texts"]
)
def test_nothing_is_there_twice_and_nothing_is_frayed(rows: list[dict[str, Any]], key: str) -> None:
    texts = [row[key] for row in rows]
    assert [(a, b) for a, b in itertools.combinations(texts, 2) if _grams(a) & _grams(b)] == []
    assert len({" ".join(_words(text)) for text in texts}) == len(texts)
    assert [text for text in texts if text != text.strip() or "\r" in text or "\ufffd" in text] == []


def test_prompts_keep_away_from_what_people_tune_for() -> None:
    """A prompt that is the task itself would call learning forgetting."""
    benchmarks = re.compile(
        r"\b(?:movies?|films?|reviews?|sentiments?|tweets?|named entit\w+|#person\d#)", re.IGNORECASE
    )
    assert [row["prompt"] for row in PROMPTS if benchmarks.search(row["prompt"])] == []


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A passage of broken code would not be general text but general mistakes."""
    (code,) = (row["text"] for row in TEXTS if row["kind"] == "code")
    exec(compile(code, "general_text.jsonl", "exec"), {})
    assert capsys.readouterr().out == "[4.0, 6.0, 8.0]\n"

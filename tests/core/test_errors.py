from __future__ import annotations

import pytest

from tunesmith.core.errors import Mistake, Mistakes, closest, nearest


def test_several_mistakes_are_one_mistake_of_several_lines() -> None:
    several = Mistakes(line for line in ("one", "two"))
    assert isinstance(several, Mistake)
    assert several.lines == ("one", "two")
    assert str(several) == "one\ntwo"


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("lorra", ["lora", "dora"], "lora"),
        ("LoRA", ["lora", "full"], "lora"),
        ("rmsnorm", ["RMSNorm", "other"], "RMSNorm"),
        ("Prompt-Tuning", ["prompt_tuning", "lora"], "prompt_tuning"),
        ("smollm2_135m_instuct", ["smollm2-135m-instruct", "smollm2-135m"], "smollm2-135m-instruct"),
        ("My-Task.yml", ["my_task.yml", "other.yml"], "my_task.yml"),
        ("zebra", ["lora", "full"], ""),
        ("", ["lora"], ""),
        ("lora", [], ""),
    ],
)
def test_the_closest_word_is_found_whatever_its_case_and_hyphens(word: str, known: list[str], meant: str) -> None:
    assert closest(word, iter(known)) == meant


def test_a_word_near_none_is_answered_with_all_there_are_each_once() -> None:
    assert nearest("lorra", ["full", "lora"]) == "did you mean 'lora'?"
    assert nearest("zebra", ["lora", "full", "lora"]) == "known: full, lora"

from __future__ import annotations

import pytest

from tunesmith.core.records import Text
from tunesmith.tasks import language_modelling as task

CONFIG = task.Config()
LONG = "It rained in Rome. " * 40


def test_a_document_is_gone_on_with_from_its_beginning() -> None:
    record = Text("It rained in Rome all night.")
    assert task.prompt(record, CONFIG)[0].content == "It rained in Rome"
    assert task.answer(record, CONFIG) == " all night."


@pytest.mark.parametrize("text", [LONG, "one two", "word", "ein sehr langes Wort" * 3])
def test_beginning_and_what_follows_are_the_text(text: str) -> None:
    record = Text(text)
    (asked,), answer = task.prompt(record, CONFIG), task.answer(record, CONFIG)
    assert text.startswith(asked.content + answer)
    assert len(asked.content) <= len(text)
    assert len(answer) <= task.BEGINNING


def test_what_is_written_is_set_beside_what_follows() -> None:
    score = task.judge(Text("It rained in Rome all night."), "all day.", CONFIG)
    assert score.value == pytest.approx(0.5)  # one word of two, both ways
    assert score.references == ("all night.",)

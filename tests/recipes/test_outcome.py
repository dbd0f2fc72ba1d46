from __future__ import annotations

from pathlib import Path

from tunesmith.core.config import choose
from tunesmith.core.records import Chat, Labelled, Message, Score
from tunesmith.evaluation.answers import Answers
from tunesmith.metrics._measure import measure
from tunesmith.recipes._outcome import EXAMPLES, Outcome, confusion, load

LABELS = ("bad", "good")


def score(said: str, right: str) -> Score:
    return Score(float(said == right), prediction=said, references=(right,))


def answers(scores: list[Score], metric: str, outputs: list[str]) -> Answers:
    measured = {metric: measure(metric, scores)}
    return Answers(tuple(outputs), tuple(scores), (), 12.345, 2.0, metric, measured)


def test_what_is_saved_comes_back_as_it_was(tmp_path: Path) -> None:
    # Line separators of Unicode, which Python's splitlines would split at, are text like any other.
    scores = [
        score("good", "good"),
        score("one\u2028two\x85three\n", "good"),
        Score(0.5, 3.0, ("B-PER", "O"), (("B-PER", "I-PER"),)),
        Score(1.25, weight=7.0),
    ]
    outcome = Outcome("lora", metric="accuracy", value=0.5, config={"r": 8}, curve=[{"step": 1, "loss": 2.0}])
    outcome.save(tmp_path / "rung", scores)
    assert load(tmp_path / "rung") == (outcome, scores)
    assert load(tmp_path / "other") is None


def test_a_confusion_is_counted_by_label_and_answer() -> None:
    scores = [score("good", "good"), score("good", "bad"), score("bad", "bad"), score("good", "bad")]
    assert confusion(scores, LABELS) == {"labels": ["bad", "good"], "counts": [[1, 2], [0, 1]]}
    assert confusion(scores, ()) is None
    assert confusion([Score(1.0, prediction=("good", "bad"))], LABELS) is None
    assert confusion(scores, [str(number) for number in range(21)]) is None


def test_an_answer_that_is_no_label_is_in_no_cell() -> None:
    assert confusion([score("perhaps", "good"), score("good", "good")], LABELS) == {
        "labels": ["bad", "good"],
        "counts": [[0, 0], [0, 1]],
    }


def test_measured_takes_over_numbers_and_the_first_examples() -> None:
    rows = [Labelled(f"text {n}", LABELS[n % 2]) for n in range(20)]
    outcome = Outcome("few_shot")
    found = answers([score("good", row.output) for row in rows], "accuracy", ["good"] * 20)
    outcome.measured(found, rows, choose("tasks", "classification", labels=list(LABELS)))
    assert (outcome.metric, outcome.value, outcome.n) == ("accuracy", 0.5, 20)
    assert outcome.prompt_tokens_per_query == 12.3
    assert outcome.seconds_per_query == 0.1
    assert outcome.caution == found.measured.caution != ""
    assert len(outcome.examples) == EXAMPLES
    assert outcome.examples[0] == {"input": "text 0", "reference": "bad", "output": "good", "right": False}
    assert outcome.line() == f"accuracy 0.500 ({outcome.low:.3f} to {outcome.high:.3f}, n=20)"


def test_conversations_are_shown_by_their_turns() -> None:
    talk = Chat(
        (Message("user", "hello"), Message("assistant", "hi"), Message("user", "bye"), Message("assistant", "so long"))
    )
    outcome = Outcome("zero_shot")
    outcome.measured(answers([Score(3.0, weight=4.0)], "perplexity", ["see you"]), [talk], choose("tasks", "chat"))
    assert outcome.examples == [
        {"input": "user: hello\nassistant: hi\nuser: bye", "reference": "so long", "output": "see you", "right": None}
    ]
    assert outcome.confusion is None

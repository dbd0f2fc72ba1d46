"""What every task must be, whichever file it is: prompt, answer and judge agree with one another and the metric."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from types import ModuleType

import pytest

from tunesmith.core.config import Section
from tunesmith.core.records import Chat, Labelled, Message, Text
from tunesmith.core.rooms import choice, names, summary
from tunesmith.metrics._measure import counted, measure

Rows = tuple[Labelled, ...] | tuple[Chat, ...] | tuple[Text, ...]

PERSON, PLACE, FILM = LABELS = ["a person of some renown", "a place that one can visit", "a film to see this week"]
ROWS = (
    Labelled(
        "Jane Doe saw Paris , Texas .",
        PLACE,
        (PLACE, FILM),
        "A passage.",
        tokens=("Jane", "Doe", "saw", "Paris", ",", "Texas", "."),
        tags=(f"B-{PERSON}", f"I-{PERSON}", "O", f"B-{PLACE}", f"I-{PLACE}", f"I-{PLACE}", "O"),
    ),
    Labelled(
        "It rained in Rome .",
        FILM,
        context="Another.",
        tokens=("It", "rained", "in", "Rome", "."),
        tags=("O", "O", "O", f"B-{PLACE}", "O"),
    ),
)
"""Records with every field filled, the texts long enough for 4-grams."""
CHATS = tuple(
    Chat(
        (
            Message("user", row.input),
            Message("assistant", "Yes."),
            Message("user", "Why?"),
            Message("assistant", answer),
        )
    )
    for row, answer in zip(ROWS, ("Because it is so.", "For no reason at all."), strict=True)
)
TEXTS = (Text("It rained in Rome all night, and the streets were wet."), Text("Jane saw Paris in May. It was green."))


@pytest.fixture(params=names("tasks"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> ModuleType:
    return choice("tasks", name)


@pytest.fixture
def config(task: ModuleType) -> Section:
    keys = {"labels": LABELS} if "labels" in task.Config.model_fields else {}
    made = task.Config(**keys)
    assert isinstance(made, Section)
    return made


@pytest.fixture
def rows(task: ModuleType) -> Rows:
    return {Labelled: ROWS, Chat: CHATS, Text: TEXTS}[task.RECORD]


def test_says_what_it_is(name: str, task: ModuleType) -> None:
    assert summary("tasks", name)
    assert task.RECORD is Text or {"instruction", "system"} & set(task.Config.model_fields)
    assert "max_new_tokens" in task.Config.model_fields
    assert all(field.description for field in task.Config.model_fields.values())
    besides = {"system"} if task.RECORD is Chat else set()  # a column that becomes a turn
    assert set(task.FIELDS) <= {field.name for field in dataclasses.fields(task.RECORD)} | besides
    assert set(task.OPTIONAL) <= set(task.FIELDS) == set(task.ALIASES)
    usual = [alias for aliases in task.ALIASES.values() for alias in aliases]
    assert len(set(usual)) == len(usual), "one column name cannot stand for two fields"
    assert not set(usual) & set(task.FIELDS), "a field's own name is no alias of another"


def test_its_metrics_are_there_and_differ(task: ModuleType) -> None:
    reported = (task.METRIC, *task.METRICS)
    assert set(reported) <= set(names("metrics"))
    assert len(set(reported)) == len(reported)


def test_prompt_ends_with_the_user_and_the_answer_follows_it(task: ModuleType, config: Section, rows: Rows) -> None:
    for row in rows:
        prompt, answer, whole = task.prompt(row, config), task.answer(row, config), task.conversation(row, config)
        assert prompt[-1].role == "user"
        assert whole[: len(prompt)] == prompt
        assert whole[len(prompt)] == Message("assistant", answer)
        assert answer


def test_the_instruction_comes_first_and_is_the_same_in_every_row(task: ModuleType, rows: Rows) -> None:
    if task.RECORD is Text:
        pytest.skip("of a document nothing is asked")
    keys = {"labels": LABELS} if "labels" in task.Config.model_fields else {}
    config = task.Config(instruction="Do as the others did.", **keys)
    for row in rows:
        assert task.prompt(row, config)[0].content.startswith("Do as the others did")
    first, second = (task.prompt(row, config)[0] for row in rows)
    if first.role == "user":
        assert first.content.split("\n\n")[0] == second.content.split("\n\n")[0]


def test_the_wanted_answer_gets_full_marks_and_nonsense_none(task: ModuleType, config: Section, rows: Rows) -> None:
    right = [task.judge(row, task.answer(row, config), config) for row in rows]
    wrong = [task.judge(row, "zzzz", config) for row in rows]
    judged = [metric for metric in (task.METRIC, *task.METRICS) if choice("metrics", metric).READS != "likelihood"]
    worst, best = choice("metrics", judged[0]).RANGE
    assert [score.value for score in right] == [best, best]
    assert [score.value for score in wrong] == [worst, worst]
    for metric in filter(lambda metric: counted(metric, right), judged):
        worst, best = choice("metrics", metric).RANGE
        assert measure(metric, right).value == best
        assert measure(metric, wrong).value == worst


@pytest.mark.parametrize(
    "output", ["", "\n\n", "| person", ",,;", "none", f"Jane Doe | {PERSON}\n" * 40, "\u202e\x00é", "a" * 5000]
)
def test_judging_takes_whatever_a_model_writes(task: ModuleType, config: Section, rows: Rows, output: str) -> None:
    for row in rows:
        score = task.judge(row, output, config)
        assert math.isfinite(score.value)
        assert score.references


def test_every_candidate_is_right_where_it_is_wanted(task: ModuleType, config: Section) -> None:
    for text in task.candidates(config):
        assert task.judge(Labelled("text", text), text, config).value == 1.0


def test_a_prompt_needs_no_answer(task: ModuleType, config: Section) -> None:
    bare = {Chat: Chat((Message("user", "Hello."),)), Text: Text("Hello .")}.get(task.RECORD, Labelled("Hello ."))
    assert "Hello" in task.prompt(bare, config)[-1].content


def test_more_tokens_can_be_allowed(task: ModuleType) -> None:
    assert task.max_new_tokens(task.Config(max_new_tokens=7)) == 7
    assert task.max_new_tokens(task.Config()) >= 8


def test_tasks_and_metrics_are_light_to_import() -> None:
    """The command line reads them to explain a task file; `tunesmith --help` has 0.3 s."""
    code = (
        "import sys; from tunesmith.core.rooms import choice, names\n"
        "[choice(room, name) for room in ('tasks', 'metrics') for name in names(room)]\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'sacrebleu', 'nltk', 'rouge_score', 'seqeval', 'datasets'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

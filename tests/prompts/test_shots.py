from __future__ import annotations

from collections import Counter

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Labelled, Message
from tunesmith.prompts.shots import Shots, as_messages, question

POOL = [
    Labelled(f"text number {place}", ("red", "green", "blue")[place % 3 if place < 12 else 0]) for place in range(30)
]
FILMS = [
    Labelled("The jokes were dull and the film was long.", "negative"),
    Labelled("A lake at dawn, filmed with love.", "positive"),
    Labelled("Football on a wet pitch.", "neutral"),
    Labelled("今日は雨だ", "neutral"),
]


@pytest.mark.parametrize("how", ["random", "balanced"])
def test_the_same_seed_chooses_the_same_and_fewer_are_the_first_of_more(how: str) -> None:
    shots = Shots(POOL)
    eight = shots.choose(None, 8, how, seed=3)  # type: ignore[arg-type]  # parametrised
    assert shots.choose(POOL[0], 4, how, seed=3) in (eight[:4], [s for s in eight if s is not POOL[0]][:4])  # type: ignore[arg-type]  # parametrised
    assert Shots(POOL).choose(None, 8, how, seed=3) == eight  # type: ignore[arg-type]  # parametrised
    assert len(set(eight)) == 8
    assert shots.choose(None, 8, how, seed=4) != eight  # type: ignore[arg-type]  # parametrised


def test_balanced_takes_each_label_once_before_any_twice() -> None:
    chosen = Shots(POOL).choose(None, 9, "balanced")
    for start in (0, 3, 6):
        assert {shot.output for shot in chosen[start : start + 3]} == {"red", "green", "blue"}


def test_balanced_takes_every_mixture_of_entities_once_before_any_twice() -> None:
    tags = {"none": ("O", "O"), "person": ("B-person", "I-person"), "both": ("B-place", "B-person")}
    pool = [
        Labelled("", tokens=(kind, str(n)), tags=tags[kind])
        for kind, count in (("none", 40), ("person", 5), ("both", 3))
        for n in range(count)
    ]
    chosen = [shot.tokens[0] for shot in Shots(pool).choose(None, 9, "balanced")]
    assert [sorted(chosen[at : at + 3]) for at in (0, 3, 6)] == [["both", "none", "person"]] * 3


def test_balanced_is_no_fixed_turn_of_labels() -> None:
    chosen = [shot.output for shot in Shots(POOL).choose(None, 12, "balanced", seed=1)]
    assert chosen != chosen[:3] * 4


def test_balanced_goes_on_when_a_label_has_run_out() -> None:
    chosen = Shots(POOL).choose(None, 30, "balanced")
    assert sorted(chosen, key=repr) == sorted(POOL, key=repr)
    assert Counter(shot.output for shot in chosen[:12]) == {"red": 4, "green": 4, "blue": 4}


def test_similar_is_nearest_to_the_query_at_the_end() -> None:
    chosen = Shots(FILMS).choose(Labelled("Was the film dull? The jokes?"), 2, "similar")
    assert chosen[-1] is FILMS[0]
    assert Shots(FILMS).choose(Labelled("雨"), 1, "similar") == [FILMS[3]]
    asked = Labelled("Was the film dull? The jokes?")
    assert Shots([asked, *FILMS, asked]).choose(asked, 1, "similar") == [FILMS[0]]


@pytest.mark.parametrize("query", ["", "zzz", "?!"])
def test_similar_finds_something_for_any_query(query: str) -> None:
    assert len(Shots(FILMS).choose(Labelled(query), 3, "similar")) == 3


@pytest.mark.parametrize("how", ["random", "balanced", "similar"])
def test_the_query_itself_is_never_a_shot(how: str) -> None:
    asked = Labelled(FILMS[0].input)  # its answer is not known yet
    pool = [FILMS[0], *FILMS, Labelled(FILMS[0].input, "positive")]
    for k in (1, 3, 9):
        chosen = Shots(pool).choose(asked, k, how)  # type: ignore[arg-type]  # parametrised
        assert asked.input not in {shot.input for shot in chosen}
        assert len(chosen) == min(k, 3)


@pytest.mark.parametrize("how", ["random", "balanced", "similar"])
def test_no_pool_and_no_shots(how: str) -> None:
    assert Shots([]).choose(FILMS[0], 4, how) == []  # type: ignore[arg-type]  # parametrised
    assert Shots(FILMS).choose(Labelled("x"), 0, how) == []  # type: ignore[arg-type]  # parametrised


def test_similar_needs_a_query_and_another_way_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="how=similar and no query"):
        Shots(FILMS).choose(None, 1, "similar")
    with pytest.raises(Mistake, match="expected random, balanced or similar"):
        Shots(FILMS).choose(None, 1, "best")  # type: ignore[arg-type]  # the mistake


def test_chats_can_be_shots() -> None:
    chats = [Chat((Message("user", text), Message("assistant", "Yes."))) for text in ("Is it dry?", "Is it wet?")]
    assert Shots(chats).choose(chats[0], 2, "random") == [chats[1]]
    assert question(chats[0]) == "Is it dry?"


def test_shots_are_earlier_turns_that_are_not_trained() -> None:
    system = Message("system", "Be brief.")
    shot = (Message("system", "Other."), Message("user", "1?"), Message("assistant", "one"))
    assert as_messages([shot, shot], (system, Message("user", "2?"))) == (
        system,
        *[Message("user", "1?"), Message("assistant", "one", trained=False)] * 2,
        Message("user", "2?"),
    )
    assert as_messages([], (Message("user", "2?"),)) == (Message("user", "2?"),)

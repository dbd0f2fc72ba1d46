from __future__ import annotations

from types import SimpleNamespace

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.objectives import clm, span_corruption
from tunesmith.objectives.span_corruption import Config

END, FIRST = 1, 900
CONFIG = Config(sentinels=tuple(range(FIRST, FIRST + 20)), end_id=END)


def document(length: int) -> Encoded:
    ids = (*range(10, 10 + length), END)
    return Encoded(ids, (0.0, *([1.0] * length)))


def restored(row: Encoded) -> list[int]:
    """The text put together again: each sentinel of the source replaced by what the answer says it hides."""
    split = row.weights.index(1.0)
    source, answer = row.ids[:split], row.ids[split:]
    hidden: dict[int, list[int]] = {}
    for token in answer[:-1]:
        if token >= FIRST:
            last = hidden.setdefault(token, [])
        else:
            last.append(token)
    assert list(hidden) == list(range(FIRST, FIRST + len(hidden)))
    assert hidden[FIRST + len(hidden) - 1] == []
    return [one for token in source[:-1] for one in (hidden[token] if token >= FIRST else [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 100, 301])
def test_source_and_answer_hold_the_text_between_them(length: int) -> None:
    row = document(length)
    for seed in range(20):
        shown = span_corruption.rows(row, CONFIG, seed)
        assert restored(shown) == list(row.ids[:-1])
        split = shown.weights.index(1.0)
        assert shown.ids[split - 1] == shown.ids[-1] == END
        assert set(shown.weights[split:]) == {1.0}


def test_the_share_and_the_spans_are_those_of_the_paper() -> None:
    shown = span_corruption.rows(document(100), CONFIG, 0)
    answer = shown.ids[shown.weights.index(1.0) :]
    assert sum(token < FIRST for token in answer[:-1]) == 15
    assert sum(token >= FIRST for token in answer) == 5 + 1


def test_other_seeds_hide_other_spans_and_never_change_the_size() -> None:
    made = [span_corruption.rows(document(100), CONFIG, seed) for seed in range(20)]
    assert len({row.ids for row in made}) == 20
    assert len({(len(row.ids), sum(row.weights)) for row in made}) == 1
    assert made[3] == span_corruption.rows(document(100), CONFIG, 3)


def test_a_text_of_one_token_hides_nothing() -> None:
    assert span_corruption.rows(document(1), CONFIG, 0) == Encoded((10, END), (0.0, 0.0))


def test_sentinels_come_from_the_tokenizer() -> None:
    words = {"<extra_id_0>": 7, "a": 0, "<extra_id_1>": 6, "<extra_id_3>": 5}
    tokenizer = SimpleNamespace(get_vocab=lambda: words, eos_token_id=END, name_or_path="toy")
    config = span_corruption.resolve(Config(), tokenizer)
    assert (config.sentinels, config.end_id) == ((7, 6), END)
    words.pop("<extra_id_0>")
    with pytest.raises(Mistake, match="toy has no sentinel tokens"):
        span_corruption.resolve(Config(), tokenizer)
    with pytest.raises(Mistake, match="5 spans to hide in a row, and 2 sentinels; lower max_length"):
        span_corruption.rows(document(100), config, 0)


def test_clm_trains_every_token_but_the_first() -> None:
    row = Encoded((5, 6, 7, 8), (0.0, 0.0, 0.0, 1.0), adapter="a")
    assert clm.rows(row, clm.Config(), 3) == Encoded((5, 6, 7, 8), (0.0, 1.0, 1.0, 1.0), adapter="a")

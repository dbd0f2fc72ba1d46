from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.objectives import mlm, nsp
from tunesmith.objectives.mlm import Config

CLS, SEP, MASK, SIZE = 2, 3, 4, 60
CONFIG = Config(mask_id=MASK, special_ids=(0, 1, CLS, SEP, MASK), vocab_size=SIZE)


def passage(length: int) -> Encoded:
    return Encoded((CLS, *(10 + place % 40 for place in range(length)), SEP), ())


def restored(row: Encoded) -> list[int]:
    """The text put together again: each token that is to be told in its place."""
    ids = list(row.ids)
    for place, token in row.labels:
        ids[place] = token
    return ids


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_what_is_shown_and_what_is_told_hold_the_text_between_them(length: int) -> None:
    for seed in range(20):
        shown = mlm.rows(passage(length), CONFIG, seed)
        assert restored(shown) == list(passage(length).ids)
        assert len(shown.labels) == len(shown.weights) == max(1, round(0.15 * length))
        assert (shown.ids[0], shown.ids[-1]) == (CLS, SEP)


def test_the_shares_are_those_of_the_paper() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(400):
        shown = mlm.rows(passage(100), CONFIG, seed)
        for place, token in shown.labels:
            there = shown.ids[place]
            kinds["mask" if there == MASK else "same" if there == token else "other"] += 1
            assert there == MASK or there not in CONFIG.special_ids
    total = kinds.total()
    assert total == 400 * 15
    # Four standard deviations of a share of 6,000 draws are 0.02; a random token is by chance the right one, 1 in 55.
    assert kinds["mask"] / total == pytest.approx(0.8, abs=0.02)
    assert kinds["other"] / total == pytest.approx(0.1, abs=0.02)
    assert kinds["same"] / total == pytest.approx(0.1, abs=0.02)


def test_every_place_but_the_special_ones_is_hidden_at_times_and_a_seed_repeats() -> None:
    made = [mlm.rows(passage(20), CONFIG, seed) for seed in range(200)]
    assert {place for row in made for place, _ in row.labels} == set(range(1, 21))
    assert made[3] == mlm.rows(passage(20), CONFIG, 3)
    assert mlm.rows(Encoded((CLS, SEP), ()), CONFIG, 0).labels == ()


def test_masks_come_from_the_tokenizer() -> None:
    class Tokenizer(SimpleNamespace):
        def __len__(self) -> int:
            return SIZE

    tokenizer = Tokenizer(mask_token_id=MASK, all_special_ids=[SEP, CLS], name_or_path="toy")
    config = mlm.resolve(Config(), tokenizer)
    assert (config.mask_id, config.special_ids, config.vocab_size) == (MASK, (CLS, SEP, MASK), SIZE)
    tokenizer.mask_token_id = None
    with pytest.raises(Mistake, match="toy has no mask token"):
        mlm.resolve(Config(), tokenizer)
    with pytest.raises(Mistake, match="are more than 1 together"):
        mlm.resolve(Config(mask_replace_prob=0.8, random_replace_prob=0.3), tokenizer)


def test_half_of_the_pairs_have_another_second_piece() -> None:
    pair = Encoded((CLS, 10, 11, SEP, 20, 21, SEP), (), second=4, meta={"other": (30, 31)})
    made = [nsp.rows(pair, nsp.Config(), seed) for seed in range(400)]
    found = Counter((row.ids, row.labels) for row in made)
    consecutive, other = (pair.ids, ((0, nsp.NEXT),)), ((CLS, 10, 11, SEP, 30, 31, SEP), ((0, nsp.OTHER),))
    assert set(found) == {consecutive, other}
    assert found[other] / 400 == pytest.approx(0.5, abs=0.1)  # four standard deviations of 400 draws
    assert made[3] == nsp.rows(pair, nsp.Config(), 3)

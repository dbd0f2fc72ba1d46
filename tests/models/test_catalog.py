from __future__ import annotations

import re

import pytest

from tunesmith.models.catalog import catalog, entry


@pytest.mark.parametrize("known", catalog().values(), ids=catalog())
def test_every_entry_says_where_it_comes_from_and_what_it_is_good_for(known) -> None:  # type: ignore[no-untyped-def]
    assert known.name == known.name.lower()
    assert known.kind in {"decoder", "encoder", "encoder-decoder"}
    assert known.parameters > 1_000_000
    assert known.context >= 512
    assert known.licence
    assert known.good_for
    if known.package:
        assert re.fullmatch(r"[0-9a-f]{64}", known.sha256)
        assert known.member
        assert known.version
        assert not known.hub
    else:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", known.hub)


def test_an_entry_is_found_whatever_its_capitals_and_dashes() -> None:
    assert entry("SmolLM2_135M-Instruct") is catalog()["smollm2-135m-instruct"]
    assert entry("no-such-model") is None

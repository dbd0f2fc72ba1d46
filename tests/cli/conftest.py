from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """A command sets variables for the process it is; here that is pytest, which goes on."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)

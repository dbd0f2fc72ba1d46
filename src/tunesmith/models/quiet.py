"""transformers without its own progress bars: ours is the only one a person sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch transformers' progress bars off for the block, and back on if they were on."""
    from transformers.utils import logging as module

    logging: Any = module

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

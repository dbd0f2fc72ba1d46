"""A dataset of the Hugging Face hub, by its id: owner/name, or hub:name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.core.packages import offline
from tunesmith.data._features import class_names, named
from tunesmith.data._row import Options, Row

SUFFIXES = ()
PREFIX = "hub:"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def sniff(name: str, head: str) -> float:
    """Sure with the prefix; likely for owner/name when there is no such folder here."""
    if name.startswith(PREFIX):
        return 1.0
    return 0.6 if _ID.fullmatch(name) and not Path(name).parent.is_dir() else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every row of one split, named by its number; class numbers are given by name. No code of the dataset is run.

    Raises Mistake when the library is not installed, there is no such dataset, subset or split, or no way to it.
    """
    dataset = _load(name.removeprefix(PREFIX), options)
    names = class_names(dataset.features.to_dict())
    for number, fields in enumerate(dataset, start=1):
        yield Row(named(fields, names), f"{name}[{options.split}]:row {number}")


def _load(identifier: str, options: Options) -> Any:
    try:
        import datasets
    except ImportError:
        raise Mistake(
            f"{identifier}: hub datasets need the library `datasets`; type `pip install 'tunesmith[hub]'`"
        ) from None
    without_network = offline() if options.offline is None else options.offline
    try:
        with _network(datasets, not without_network):
            return datasets.load_dataset(identifier, options.subset, split=options.split, revision=options.revision)
    except datasets.exceptions.DatasetNotFoundError:
        raise Mistake(_not_there(identifier, without_network)) from None
    except (ConnectionError, OSError) as error:
        reason = "we are offline and it is not in the cache" if without_network else _first_line(error)
        raise Mistake(f"{identifier}: {reason}; read it once with a network, or give a file") from error
    except ValueError as error:
        # `datasets` answers a wrong split or subset with a list of those there are.
        raise Mistake(f"{identifier}: {_first_line(error)}; set `split:` or `subset:` of the data source") from error


@contextlib.contextmanager
def _network(datasets: Any, on: bool) -> Iterator[None]:
    """Keep `datasets` off the network while we are offline: its setting counts, `local_files_only` is not looked at."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not on
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _not_there(identifier: str, without_network: bool) -> str:
    if without_network:
        return f"{identifier}: not in the cache and we are offline; read it once with a network, or give a file"
    return f"{identifier}: no file here and no dataset of the hub is called so; check the name, or give a file"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

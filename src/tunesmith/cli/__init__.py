"""The commands: every file is one, and its name (`-` for `_`) is what is typed after `tunesmith`.

A file's docstring begins with the line that `tunesmith --help` shows; it is read without importing the file. The file
has

* ``command(...)``, a plain function typed for typer, or
* ``app = typer.Typer()`` with plain functions as its subcommands (`tunesmith runs list`),

and every such function's docstring ends in an example::

    Example:

        tunesmith climb task.yaml --minutes 20

A function that works on a task file takes ``config: Config`` and ``overrides: Overrides`` (both of `cli/_options.py`)
and hands both to `load_project`: every ``--key value`` that is not an option of its own is in `overrides`, wherever it
stands. `--json`, `--quiet`, `--offline` and `--help` come to every command by themselves. Results are printed with
`cli/_show.py` only, which knows about `--json`; notices with `core/progress.py`. What a person can put right is raised
as Mistake. Interrupted work raises ``KeyboardInterrupt("what is kept")``. Heavy imports stand inside the function.
"""

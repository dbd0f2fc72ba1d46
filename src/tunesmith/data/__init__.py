"""Where examples come from: one file a format or source, its name the key written under `format:`.

Two kinds of choice live here.

A *carrier* (jsonl, json, csv, tsv, parquet, conll, squad, parallel, hub, package) opens a file or a name:

* ``SUFFIXES: tuple[str, ...]``: file endings that speak for it, without ``.gz``; () when content or name tells.
* ``sniff(name: str, head: str) -> float``: how surely this file, which begins with `head`, is that format (0 to 1).
* ``rows(name: str, options: Options) -> Iterator[Row]``: every row, the bad ones too (`Row.problem`), in order. What
  makes the whole file unreadable raises Mistake.

A *shape* (alpaca, sharegpt, prompt_completion) says what the columns of a carrier's rows mean:

* ``fits(fields: Mapping[str, Any]) -> float``: how surely a row has this shape (0 to 1).
* ``reshape(fields: Mapping[str, Any]) -> dict[str, Any]``: the row in our own fields: `input` and `output`, or
  `messages`. Raises BadField on a row that cannot be read so.
* optionally ``ALSO: tuple[str, ...]``: other names people have for it.

Our own fields are those of the records: `input output context` (Labelled), `tokens tags` (named entities), `messages`
(Chat), `text` (Text). Data know no task: what a task needs of a row comes in as arguments of `_read.read`.

Machinery: `_read` is the door (`_spec` what was asked for, `_open` bytes to text, `_columns` whose column is whose,
`_records` a row to a record). Then `_split`, `_version`, `_dedupe`, `_check` (what is wrong with the data) and `_guess`
(what `init` needs).
"""

"""Tasks: each file is one kind of work, from a record to the prompt, the answer wanted, and the judge of an output.

A file `tasks/<name>.py` has

* ``Config(Section)``: `instruction` (of a conversation: `system`) and `max_new_tokens` at least, every field with a
  default;
* ``RECORD``: the type of its records, `Labelled`, `Chat`, or `Text` (documents: learned whole, nothing is asked);
* ``FIELDS``: each field of a record that a data column can fill, and what it is;
* ``OPTIONAL``: those of them that may be missing; ``ALIASES``: what people usually call the column;
* ``SEVERAL`` (True, where it holds): a row may have several labels;
* ``METRIC``: the metric rungs are compared by; ``METRICS``: others worth reporting;
* ``prompt(record, config) -> messages``, ending with the user's turn;
* ``answer(record, config) -> str``, what should follow it;
* ``conversation(record, config) -> messages``, both together, for training;
* ``candidates(config) -> texts`` to choose between by log-probability, () where the answer is written freely;
* ``judge(record, output, config) -> Score``: the output read and set beside the references, `value` the metric of this
  row alone (where METRIC reads likelihoods, evaluation makes the scores for it and `judge` serves METRICS);
* ``max_new_tokens(config) -> int``;
* ``classes(record, config) -> labels``, where rows fall into classes that may be unequal: what a training row counts
  as; the Config then has `class_weights` and `sampling` (`_balance.py`).

A task that a model can do which reads and writes nothing (an encoder) has beside these

* ``HEAD``: what is labelled: "sequence" (a row has one label), "several" (any number), "token" (a label for each word)
  or "span" (where in the context the answer stands);
* ``choices(config) -> labels``, in order; () for a span;
* ``wanted(record, config) -> labels``: the right ones: one, any number, one a word, or the acceptable answers;
* ``written(record, labels, config) -> output``: what was found, as `judge` takes it.

The user's turn is the instruction, a blank line, the input. The instruction comes first and is the same in every row,
so that the engine computes it once for all of them.
"""

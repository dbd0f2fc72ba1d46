"""Objectives: what a model is trained for. Each file is one choice: pure functions of tensors, no model in sight.

A choice holds

* `Config`: a `Section` with a description for each key;
* `NEEDS`: names of the terms (`_terms.Terms`) that the engine must compute for it;
* `loss(terms, batch, config) -> (sum, count, metrics)`: a sum and a count, never a mean. The loop adds sums and counts
  over micro-batches, packs and machines and divides once, so accumulation is exact however the rows are divided.
  `metrics` are sums over the same count, for logging, without gradient;

and, where not any kind of model can learn it,

* `KINDS`: those that can, of "decoder", "encoder" and "encoder-decoder";

* `HEAD`, of an encoder that learns running text: what its head scores (a key of `models.heads.CLASSES`);
* `METRIC`: what running text is measured by, where that is not the task's own;

and, where it changes what the model is shown (masks, corrupted spans),

* `resolve(config, tokenizer)`: a Config with what only the tokenizer knows filled in (the ids of masks and sentinels);
  whoever trains calls it first;
* `rows(row, config, seed) -> Encoded`: the row as it is learned this time. The seed is another one for every row and
  epoch and the same when a run is repeated; of a row's seeds none may change its length or its number of targets.

Held by `tests/contracts/test_objectives.py` for every file of the folder.
"""

"""Objectives: what a model is trained for. Each file is one choice: pure functions of tensors, no model in sight.

A choice holds

* `Config`: a `Section` with a description for each key;
* `NEEDS`: names of the terms (`_terms.Terms`) that the engine must compute for it;
* `loss(terms, batch, config) -> (sum, count, metrics)`: a sum and a count, never a mean. The loop adds sums and counts
  over micro-batches, packs and machines and divides once, so accumulation is exact however the rows are divided.
  `metrics` are sums over the same count, for logging, without gradient.

Held by `tests/contracts/test_objectives.py` for every file of the folder.
"""

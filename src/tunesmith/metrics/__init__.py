"""Metrics: each file is one number that says how well rows were done, and what it takes to put an interval on it.

A file `metrics/<name>.py` has

* ``BETTER``: "higher" or "lower";
* ``UNIT``: what the number counts, for tables and axes;
* ``RANGE``: the lowest and the highest value there can be;
* ``READS``: what of a `Score` it reads: "text" (prediction and references), "tags" (sequences of BIO tags) or
  "likelihood" (value in nats, weight in tokens or bytes, no prediction);
* ``statistics(scores) -> [rows, k]``: sufficient statistics of each row, made so that they *add up*;
* ``aggregate(totals) -> [resamples]``: the metric from sums of statistics, `[resamples, k]`, never NaN.

and, where it applies,

* ``rows(scores) -> scores``: those of the rows that it is about; a metric that is about none of them is not reported;
* ``caution(scores) -> str``: what to beware of with these rows, "" for nothing;
* ``signature(scores) -> str``: the settings that make the number comparable, as the field writes them.

A mean is only one case: F1 adds up counts, BLEU adds up n-grams. Because the statistics add, a bootstrap resample is
one row of a matrix product, and the interval of corpus BLEU is that of corpus BLEU and not of a mean of sentence
scores. `_measure.py` measures and compares; the other files with an underscore are shared machinery.
"""

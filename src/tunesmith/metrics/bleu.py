"""Corpus BLEU, 0 to 100, as sacrebleu computes it: 13a tokens, exponential smoothing, closest reference length.

``BLEU = BP · exp(1/4 · Σ ln p_n)``, ``BP = min(1, exp(1 - r/c))`` (Papineni et al. 2002; Post 2018, arXiv:1804.08771).
Where the references are Chinese, sacrebleu's "zh" tokens are used, and where they are Japanese, characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array
from tunesmith.metrics._sacrebleu import signature_of

BETTER = "higher"
UNIT = "BLEU points"
RANGE = (0.0, 100.0)
READS = "text"

_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN = re.compile(r"[\u3400-\u9fff]")


def statistics(scores: Sequence[Score]) -> Array:
    """Matched 1- to 4-grams, all 1- to 4-grams, output length, reference length. `[rows, 10]`"""
    from sacrebleu.metrics.bleu import BLEU

    # effective_order bears on the score of a single sentence only; without it sacrebleu warns at each.
    bleu = BLEU(tokenize=_tokens(scores), effective_order=True)
    rows = [
        bleu.sentence_score(cast(str, score.prediction), cast(tuple[str, ...], score.references)) for score in scores
    ]
    return np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows], dtype=np.float64)


def aggregate(totals: Array) -> Array:
    """BLEU of each resample from its sums; 0 where nothing matches or no 4-gram was written."""
    matched, written, length, reference = totals[:, :4], totals[:, 4:8], totals[:, 8], totals[:, 9]
    # "exp" smoothing: the k-th order without a match gets precision 1 / (2^k written).
    empty = matched == 0
    smoothed = np.where(empty, 0.5 ** empty.cumsum(axis=1), matched)
    defined = matched.any(axis=1) & (written > 0).all(axis=1)
    logs = np.log(smoothed) - np.log(np.maximum(written, 1))
    brevity = np.minimum(0, 1 - reference / np.maximum(length, 1))
    return np.where(defined, 100 * np.exp(brevity + logs.mean(axis=1)), 0.0)


def signature(scores: Sequence[Score]) -> str:
    """sacrebleu's signature (Post 2018): references, case, tokens, smoothing, version."""
    from sacrebleu.metrics.bleu import BLEU

    return signature_of(BLEU(tokenize=_tokens(scores)), scores)


def _tokens(scores: Sequence[Score]) -> str:
    sample = "".join(cast(str, score.references[0]) for score in scores[:200])
    if len(_KANA.findall(sample)) * 10 > len(sample):
        return "char"
    return "zh" if len(_HAN.findall(sample)) * 4 > len(sample) else "13a"

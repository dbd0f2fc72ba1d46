"""Answers, summaries and translations: against SQuAD's rules worked by hand, rouge-score and sacrebleu."""

from __future__ import annotations

import importlib.metadata
import math
import re
import string
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from tunesmith.core.records import Score
from tunesmith.core.rooms import choice
from tunesmith.metrics import bits_per_byte, bleu, chrf, perplexity
from tunesmith.metrics._mean import words as normalised
from tunesmith.metrics._measure import counted, measure


def row(prediction: str, *references: str) -> Score:
    return Score(0.0, prediction=prediction, references=references)


def value(name: str, scores: list[Score]) -> float:
    metric = choice("metrics", name)
    return float(metric.aggregate(metric.statistics(scores).sum(axis=0, keepdims=True))[0])


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "overlap"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0, 1.0),
        ("in Paris, France", "Paris", 0.0, 0.5),  # P = 1/3, R = 1
        ("a", "", 1.0, 1.0),  # articles go: both empty
        ("", "Paris", 0.0, 0.0),
        ("Paris Paris", "Paris", 0.0, 2 / 3),  # a bag of words, not a set
        ("theatre", "the atre", 0.0, 0.0),  # only whole articles go
    ],
)
def test_squad_answers(prediction: str, reference: str, exact: float, overlap: float) -> None:
    assert value("exact_match", [row(prediction, reference)]) == exact
    assert value("token_f1", [row(prediction, reference)]) == pytest.approx(overlap)


def test_the_best_reference_counts() -> None:
    scores = [row("Paris", "London", "in Paris")]
    assert value("token_f1", scores) == pytest.approx(2 / 3)
    assert value("exact_match", [row("in paris", "London", "in Paris")]) == 1.0


SUMMARIES = [
    (
        "The doctor sends Amy to a specialist. She thanks him.",
        ["Amy has trouble breathing. The doctor sends her to a clinic."],
    ),
    ("They talked", ["The two talked about running.", "Two friends are talking about talks.", "They run"]),
    ("nothing of it", ["entirely different words"]),
    ("ha it is", ["has it is"]),  # three letters are not stemmed
]


@pytest.mark.parametrize(("name", "kind"), [("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")])
def test_rouge_is_rouge_score_with_its_stemmer(name: str, kind: str) -> None:
    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=True)
    theirs = [scorer.score_multi(references, text)[kind].fmeasure for text, references in SUMMARIES]
    ours = value(name, [row(text, *references) for text, references in SUMMARIES])
    assert ours == pytest.approx(sum(theirs) / len(theirs))
    assert ours > 0


def test_rouge_lsum_looks_at_sentences_whether_or_not_lines_separate_them() -> None:
    scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True)
    theirs = scorer.score("b two.\na one.", "a one.\nb two.")["rougeLsum"].fmeasure
    assert value("rouge_lsum", [row("A one. B two.", "B two. A one.")]) == pytest.approx(theirs) == 1.0
    assert value("rouge_l", [row("A one. B two.", "B two. A one.")]) == 0.5


def test_rouge_counts_words_that_are_not_english() -> None:
    assert value("rouge_1", [row("Привет, мир", "привет мир")]) == 1.0  # rouge-score alone: 0, no ASCII letter
    assert value("rouge_1", [row("schöne Häuser", "schone Hauser")]) == 0.0
    assert value("rouge_2", [row("今日は晴れ", "今日は雨")]) == pytest.approx(2 * 2 / (4 + 3))


TRANSLATIONS = [
    (
        "A man in a blue shirt is standing on a ladder.",
        ["A man in a blue shirt is standing on a ladder cleaning a window."],
    ),
    ("Two dogs runs through the snow", ["Two dogs are running through snow.", "Two dogs run through the snow."]),
    ("", ["Nothing was said."]),
    ("Yes.", ["Yes."]),
]


@pytest.mark.parametrize(("ours", "theirs"), [(bleu, BLEU()), (chrf, CHRF())], ids=["bleu", "chrf"])
def test_corpus_scores_and_all_resamples_are_sacrebleus(ours: object, theirs: BLEU) -> None:
    assert hasattr(ours, "statistics")
    assert hasattr(ours, "aggregate")
    statistics = ours.statistics([row(text, *references) for text, references in TRANSLATIONS])
    for counts in ([1, 1, 1, 1], [0, 2, 1, 0], [3, 0, 0, 1], [0, 0, 2, 0], [0, 0, 0, 5]):
        drawn = [TRANSLATIONS[index] for index, times in enumerate(counts) for _ in range(times)]
        width = max(len(references) for _, references in drawn)
        columns = [[refs[i] if i < len(refs) else None for _, refs in drawn] for i in range(width)]
        expected = theirs.corpus_score([text for text, _ in drawn], columns).score
        assert ours.aggregate((np.array(counts) @ statistics)[None])[0] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(*[some.text("ab c.", max_size=12)] * 2), min_size=1, max_size=4))
def test_any_corpus_scores_as_sacrebleu_does(pairs: list[tuple[str, str]]) -> None:
    texts, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = [row(text, reference) for text, reference in pairs]
    assert value("chrf", scores) == pytest.approx(CHRF().corpus_score(texts, [references]).score, abs=1e-9)
    assert value("bleu", scores) == pytest.approx(BLEU().corpus_score(texts, [references]).score, abs=1e-9)


def test_bleu_reads_chinese_by_character() -> None:
    text, reference = "今天天气很好", "今天天气非常好"
    expected = BLEU(tokenize="zh").corpus_score([text], [[reference]]).score
    assert value("bleu", [row(text, reference)]) == pytest.approx(expected)
    assert expected > 0
    assert value("bleu", [row("今日はいい天気", "今日はいい天気だ")]) > 50


def test_perplexity_and_bits_per_byte_by_hand() -> None:
    scores = [Score(2.0, weight=1.0), Score(4.0, weight=3.0)]  # 6 nats over 4
    assert value("perplexity", scores) == pytest.approx(math.exp(1.5))
    assert value("bits_per_byte", scores) == pytest.approx(1.5 / math.log(2))


def test_a_hopeless_model_has_infinite_perplexity_without_a_warning() -> None:
    assert value("perplexity", [Score(1e6, weight=10.0)]) == math.inf


@pytest.mark.parametrize("statistics", [perplexity.statistics, bits_per_byte.statistics])
def test_judged_outputs_are_not_likelihoods(statistics: Callable[[list[Score]], object]) -> None:
    with pytest.raises(ValueError, match="judge outputs"):
        statistics([Score(1.0, prediction="yes", references=("yes",))])


@pytest.mark.parametrize(
    ("references", "nrefs"), [([["a", "b"], ["c", "d"]], "2"), ([["a"], ["b"]], "1"), ([["a"], ["b", "c"]], "var")]
)
def test_bleu_and_chrf_carry_sacrebleus_signature(references: list[list[str]], nrefs: str) -> None:
    scores = [row("a", *some_references) for some_references in references]
    version = importlib.metadata.version("sacrebleu")
    signature = f"nrefs:{nrefs}|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert measure("bleu", scores).signature == signature
    signature = f"nrefs:{nrefs}|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
    assert measure("chrf", scores).signature == signature
    assert measure("rouge_l", scores).signature == ""


def test_questions_without_an_answer_are_told_apart() -> None:
    """Four questions as SQuAD 2.0's script counts them; HasAns and NoAns weighed by their rows give the whole."""
    scores = [
        row("in Paris", "Paris", "Lyon"),  # P = 1/2, R = 1: 2/3
        row("", "Rome"),  # abstained though there is an answer: 0
        row("", ""),  # abstained rightly: 1
        row("Jane", ""),  # answered what has no answer: 0
    ]
    assert measure("has_answer_f1", scores).value == pytest.approx((2 / 3 + 0) / 2)
    assert measure("no_answer_f1", scores).value == 0.5
    assert (measure("has_answer_f1", scores).n, measure("no_answer_f1", scores).n) == (2, 2)
    assert measure("token_f1", scores).value == pytest.approx((2 / 3 + 0 + 1 + 0) / 4)
    assert not counted("no_answer_f1", scores[:2])
    assert not counted("has_answer_f1", scores[:2]), "it would be token_f1 again"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Cat's\n hat", "cats hat"),  # lower, punctuation goes, article goes, white space is one blank
        ("a.b", "ab"),  # punctuation goes without leaving a blank, so this article is none
        ("An apple a day", "apple day"),
        ("«Été»", "«été»"),  # only string.punctuation, which is ASCII
        ("U.S.", "us"),
        ("the", ""),
    ],
)
def test_answers_are_normalised_as_squads_script_does(text: str, words: str) -> None:
    """Its four steps as published: lower, remove_punc, remove_articles, white_space_fix."""
    published = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    published = " ".join(re.sub(r"\b(a|an|the)\b", " ", published).split())
    assert " ".join(normalised(text)) == published == words

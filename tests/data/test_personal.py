"""Signs of personal data, and languages: counted only when they are clear."""

from __future__ import annotations

import pytest

from tunesmith.data._language import languages
from tunesmith.data._personal import KINDS, personal_data


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna.lee+news@mail.example.org, please", "e-mail"),
        ("call +49 30 1234567 today", "phone"),
        ("call (212) 555-0123 today", "phone"),
        ("call 212-555-0123 today", "phone"),
        ("call 0044 20 7946 0958 today", "phone"),
        ("call 030/1234567 today", "phone"),
        ("card 4111 1111 1111 1111 until 12/30", "card"),
        ("card 5500-0000-0000-0004", "card"),
        ("card 378282246310005", "card"),
        ("card 4111 1111 1111 1112", ""),  # the check digit is wrong
        ("card 44444444444444444", ""),
        ("follow @anonymous on 2020-01-02 at 12:30", ""),
        ("it cost $1,234,567.89 in 1999-2001, ISBN 978-3-16-148410-0", ""),
        ("pi is 3.14159265358979", ""),
        ("order 20231105123456789", ""),
    ],
)
def test_each_kind_is_counted_by_its_form(text: str, kind: str) -> None:
    found = personal_data([text])
    assert {name: count for name, count in found.items() if count} == ({kind: 1} if kind else {})


def test_texts_are_counted_not_occurrences_and_every_kind_is_reported() -> None:
    assert personal_data(["a@b.org c@d.org", "a@b.org", "none"]) == {"e-mail": 2, "phone": 0, "card": 0}
    assert tuple(personal_data([])) == KINDS


def test_languages_are_counted_when_the_text_is_long_enough_to_tell() -> None:
    english = "The quick brown fox jumps over the lazy dog while everybody else is looking on and wondering."
    german = "Zwei junge Männer sind im Freien in der Nähe vieler Büsche und sehen sich neugierig um."
    japanese = "今日はとても良い天気なので公園まで散歩"
    assert languages([english] * 3 + [german, japanese]) == {"en": 3, "de": 1, "ja": 1}
    of_no_one = "banana telefon hotel taxi radio video piano opera pasta pizza internet menu"
    gibberish = "xkcd qwrt zzpl mnbv kjhg lkjh poiu ytre wqas dfgh nmkl"
    assert languages(["hello", "Guten Morgen, ihr Lieben!", "?", "😀" * 90, "1234 " * 30, of_no_one, gibberish]) == {}
    assert languages([]) == {}

"""Signs of personal data, counted and never shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

KINDS = ("e-mail", "phone", "card")

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_CARD = re.compile(r"(?<![\w.,-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w./-])(?:"
    r"(?:\+|00)\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,3}"  # +49 30 1234567
    r"|\(\d{3}\) ?\d{3}[ .-]?\d{4}"  # (212) 555-0123
    r"|\d{3}[-. ]\d{3}[-. ]\d{4}"  # 212-555-0123
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,4}"  # 030 1234567
    r")(?![\w-])"
)


def personal_data(texts: Iterable[str]) -> Counter[str]:
    """How many texts hold something like an e-mail address, a phone number or a payment card's number."""
    found: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for text in texts:
        found["e-mail"] += "@" in text and bool(_EMAIL.search(text))
        # Most texts have too few digits to look any closer.
        if sum(character.isdigit() for character in text) < 9:
            continue
        cards = [match.group() for match in _CARD.finditer(text) if _is_card(match.group())]
        found["card"] += bool(cards)
        found["phone"] += any(9 <= _digits(match.group()) <= 15 for match in _PHONE.finditer(text))
    return found


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _is_card(text: str) -> bool:
    """Thirteen to nineteen digits with a right check digit (Luhn 1960), not all the same."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0

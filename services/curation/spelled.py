"""Values the libraries do not know by sight: spelled, defanged, checksummed, or telemetry (C3).

Each rule is a pattern and, where the value has a checksum, its check: that is what lets a card
number be found with dots in it, or an IBAN in lower case, without false alarms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.curation.redaction import Span


def luhn(value: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, character in enumerate(reversed(re.sub(r"\D", "", value))):
        digit = int(character) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def mod_97(value: str) -> bool:
    """ISO 13616: an IBAN's number is 1 modulo 97."""
    compact = re.sub(r"[\s.-]", "", value)
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _mixed(value: str) -> bool:
    """A password holds letters and something else; a word after 'password:' is prose."""
    return bool(re.search(r"[A-Za-z]", value)) and bool(re.search(r"\d", value))


def _opaque(value: str) -> bool:
    """An identifier no person chose: long, and with digits."""
    return len(value) >= 16 and bool(re.search(r"\d", value))


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern of one type of value; its group `value`, where it has one, is the value."""

    kind: str
    hints: tuple[str, ...]
    """What a text in lower case must hold one of for the rule to be tried at all."""
    needs: re.Pattern[str] | None
    """And what else that text must hold, where a hint is common: cheaper than the pattern."""
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = bool
    words: frozenset[str] = frozenset()
    """Which whole words it must hold one of, where any are listed."""


_WORD = re.compile(r"\w+")
_AT, _DOT = r"\s?[\[({<]\s?at\s?[\])}>]\s?", r"(?:\.|\s?[\[({<]\s?(?:dot|\.)\s?[\])}>]\s?)"

RULES: tuple[Rule, ...] = (
    Rule(
        "EMAIL",
        ("at",),
        re.compile(r"[\[({<]\s?at\s?[\])}>]"),
        re.compile(
            rf"[\w+-]+(?:{_DOT}[\w+-]+)*{_AT}[a-z0-9-]+(?:{_DOT}[a-z0-9-]+)*{_DOT}[a-z]{{2,12}}\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "IP",
        ("[.]", "(.)", "[dot]"),
        None,
        re.compile(
            r"(?<![\w.])\d{1,3}(?:(?:\.|\[\.\]|\(\.\)|\[dot\])\d{1,3}){3}(?![\w.])", re.IGNORECASE
        ),
    ),
    Rule(
        "CREDIT_CARD",
        (".", "_", "/"),
        re.compile(r"\d{4}[._/]\d{4}[._/]\d{4}"),
        re.compile(r"(?<![\d.])[2-6]\d{3}([._/])\d{4}\1\d{4}\1\d{4}(?![\d.]?\d)"),
        luhn,
    ),
    Rule(
        "IBAN",
        tuple("0123456789"),
        re.compile(r"\d{2}\s?[a-z0-9]{4}\s?[a-z0-9]{4}"),
        re.compile(r"\b[a-z]{2}\d{2}(?:\s?[a-z0-9]{4}){2,7}(?:\s?[a-z0-9]{1,3})?\b"),
        mod_97,
    ),
    Rule(
        "SECRET",
        ("eyj",),
        None,
        re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"),
    ),
    Rule(
        "SECRET",
        ("pass", "pwd"),
        re.compile(
            r"(?:password|passwd|passphrase|pwd|_pass)\b[\"']?\s*(?:is\s*)?[:=]\s*[\"']?[^\s\"'<>,;]{8}"
        ),
        re.compile(
            r"\b\w*(?:password|passwd|passphrase|pwd|_pass)\b[\"']?\s*(?:is\s*)?[:=]\s*[\"']?"
            r"(?P<value>[^\s\"'<>,;]{8,})",
            re.IGNORECASE,
        ),
        _mixed,
    ),
    Rule(
        "TELEMETRY",
        ("id",),
        re.compile(r"id[\"']?\s*[:=]\s*[\"']?[\w.:-]{16}"),
        re.compile(
            r"\b(?:session|device|trace|span|request|visitor|client|tracking|advertising|install"
            r"(?:ation)?|correlation)[_ -]?id[\"']?\s*[:=]\s*[\"']?(?P<value>[\w.:-]+)",
            re.IGNORECASE,
        ),
        _opaque,
    ),
    Rule(
        "TELEMETRY",
        ("mozilla/",),
        None,
        re.compile(r"\bMozilla/\d\.\d \([^)\n]+\)(?: \w+/[\w.]+(?: \([^)\n]+\))?)*"),
    ),
)


class Rules:
    """Rules of one detector, tried together: what a text holds is looked up once for all."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [
            (
                rule,
                frozenset(rule.hints),
                [name for name in ("value", "more") if name in rule.pattern.groupindex],
            )
            for rule in rules
        ]
        self._hints = sorted({hint for rule in rules for hint in rule.hints})
        self._words = frozenset(word for rule in rules for word in rule.words)

    def matched(self, text: str) -> Iterator[Span]:
        """The spans of a text that a rule finds and its check confirms."""
        lowered = text.lower()
        held = {hint for hint in self._hints if hint in lowered}
        if not held:
            return
        words = self._words.intersection(_WORD.findall(lowered))
        for rule, hints, named in self._rules:
            if (
                hints.isdisjoint(held)
                or (rule.words and rule.words.isdisjoint(words))
                or (rule.needs is not None and not rule.needs.search(lowered))
            ):
                continue
            for match in rule.pattern.finditer(text):
                group = next((name for name in named if match[name] is not None), 0)
                if rule.check(match[group]):
                    yield Span(match.start(group), match.end(group), rule.kind)

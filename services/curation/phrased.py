"""Values as prose has them: spelled in words, spaced out, or named before they come (C3).

The rules read the words around a value, so each is as narrow as its words: a number is a telephone
number after 'reach me on', a word with digits is a password after 'the password is'. Checks keep
what merely looks alike.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise

from services.curation.spelled import Rule, luhn, mod_97

_TLD = (
    r"(?:com|org|net|edu|gov|info|biz|dev|app|io|co|me|[a-z]{2})"
    r"(?![\w-])"
)
_JOIN = r"(?:\s+(?:dot|underscore|dash|hyphen)\s+|\s?[._-]\s?)"
_DIGIT_WORD = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple)"
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAMED = (
    r"(?:phone|telephone|telefon|tel|tlf|cell|mobile|mobil|mob|handy|handphone|fax|sms|whatsapp"
    r"|switchboard|(?:contact|my|his|her|their|our) number)"
)
_ASKED = r"(?:call|text|dial|ring|reach (?:me|us|him|her|them)|get me)"
"""What people also say of functions and orders: the number itself must look like a telephone's."""
_PASSWORD = (
    r"(?:password|passphrase|passcode|passwort|passord|pw|pin(?: code)?"
    r"|(?:backup|recovery|access|door) code)"
)

_NAMING = frozenset(
    {"phone", "telephone", "telefon", "tel", "tlf", "cell", "mobile", "mobil", "mob", "handy"}
    | {"handphone", "fax", "sms", "whatsapp", "switchboard", "number"}
)
_ASKING = frozenset({"call", "text", "dial", "ring", "reach", "get"})
_SECRET_WORDS = frozenset(
    {"password", "passphrase", "passcode", "passwort", "passord", "pw", "pin", "backup"}
    | {"recovery", "access", "door"}
)
"""A word of every phrase above: a text without one has none of them."""
_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")


def _number(value: str) -> bool:
    """Seven to fifteen digits (ITU-T E.164) that are no date."""
    digits = re.sub(r"\D", "", value)
    date = (
        r"(?:(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d)(?!\d)"
    )
    return 7 <= len(digits) <= 15 and not re.match(date, value.strip())


def _no_counting(value: str) -> bool:
    """Digits in words that do not merely count up or down."""
    said = [_DIGITS.index(w) for w in re.findall(r"[a-z]+", value.lower()) if w in _DIGITS]
    steps = {b - a for a, b in pairwise(said)}
    return steps not in ({1}, {-1})


def _chosen(value: str) -> bool:
    """Letters and digits together: what a person or a machine chose, not a word of prose."""
    return bool(re.search(r"[A-Za-z]", value)) and bool(re.search(r"\d", value))


def _drawn(value: str) -> bool:
    """As a machine draws them: several digits, or all three kinds; no identifier of a program."""
    digits = len(re.findall(r"\d", value))
    kinds = all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", r"\d"))
    return _chosen(value) and (digits >= 4 or (kinds and "_" not in value))


def _login(value: str) -> bool:
    """RFC 7617: a user and a password, in base64."""
    try:
        return b":" in base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False


def _octets(value: str) -> bool:
    return all(int(part) <= 255 for part in re.findall(r"\d+", value))


PHRASED: tuple[Rule, ...] = (
    Rule(
        "EMAIL",
        (" dot ",),
        re.compile(r"\sat\s"),
        re.compile(
            rf"\b(?!(?:me|it|us|look|meet|him|her|is|be|was)\s+at\b)[\w+-]{{2,}}(?:{_JOIN}[\w+-]+)*"
            rf"\s+at\s+(?!(?:the|a|an|this|that|each|every|dot)\b)[\w-]{{2,}}"
            rf"(?:\s+dot\s+[\w-]{{2,}})*\s+dot\s+{_TLD}",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "EMAIL",
        ("@",),
        re.compile(r"\s@|@\s|[\[(]@[\])]"),
        re.compile(
            rf"\b[\w+-]+(?:\s?\.\s?[\w+-]+)*\s?(?:@|\[@\]|\(@\))\s?[a-z0-9-]+"
            rf"(?:\s?\.\s?[a-z0-9-]+)*\s?\.\s?{_TLD}",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "PHONE",
        _DIGITS,
        re.compile(rf"{_DIGIT_WORD}[\s,-]+{_DIGIT_WORD}[\s,-]+{_DIGIT_WORD}"),
        re.compile(rf"\b(?:plus[\s,-]+)?{_DIGIT_WORD}(?:[\s,-]+{_DIGIT_WORD}){{6,14}}\b",
                   re.IGNORECASE),
        _no_counting,
        _NAMING | _ASKING,
    ),
    Rule(
        "PHONE",
        tuple("0123456789"),
        _SEVEN_DIGITS,
        re.compile(
            rf"\b{_NAMED}\b(?:'s)?[\"']?[^\d\n+(]{{0,24}}"
            r"(?P<value>\+?(?:\(\+?\d{1,4}\)|\d)(?:[ ().-]{0,2}\d){6,14})(?![\d.,:]\d|\w)",
            re.IGNORECASE,
        ),
        _number,
        _NAMING,
    ),
    Rule(
        "PHONE",
        tuple("0123456789"),
        _SEVEN_DIGITS,
        re.compile(
            rf"\b{_ASKED}\b[^\d\n+(]{{0,12}}"
            r"(?P<value>(?:\+\d|\(?0|\d{2,4}[ .-](?=\d{2,4}[ .-]\d))(?:[ ().-]{0,2}\d){6,14})"
            r"(?![\d.,:]\d|\w)",
            re.IGNORECASE,
        ),
        _number,
        _ASKING,
    ),
    Rule(
        "PHONE",
        ("00",),
        re.compile(r"\b00[1-9]"),
        re.compile(r"(?<![\w.,-])00[1-9]\d{0,2}(?: \d{2,4}){2,5}(?![\w.])"),
        _number,
    ),
    Rule(
        "CREDIT_CARD",
        tuple("3456"),
        re.compile(r"\d(?:[ \u00b7._/-]?\d){12}"),
        re.compile(
            r"(?<![\d.])(?:[3-6](?P<one>[ \u00b7._/-])\d(?:(?P=one)\d){14}"
            r"|[3-6]\d(?P<two>[ \u00b7._/-])\d\d(?:(?P=two)\d\d){6}"
            r"|[3-6]\d{3}(?P<four>[ \u00b7._/-])\d{4}(?:(?P=four)\d{4}){2}"
            r"|[3-6]\d{7}[ \u00b7._/-]\d{8}|3[47]\d{2}(?P<amex>[ \u00b7._/-])\d{6}(?P=amex)\d{5}"
            r")(?![\d.]?\d)"
        ),
        luhn,
    ),
    Rule(
        "IBAN",
        (".", "-"),
        re.compile(r"\d\d[.-]\w{4}[.-]"),
        re.compile(
            r"\b[A-Z]{2}\d{2}(?P<join>[.-])[A-Z0-9]{4}(?:(?P=join)[A-Z0-9]{1,4}){1,7}\b",
            re.IGNORECASE,
        ),
        mod_97,
    ),
    Rule(
        "IP",
        (" . ",),
        re.compile(r"\d \. \d"),
        re.compile(r"(?<![\w.])\d{1,3}(?: \. \d{1,3}){3}(?![\w.])"),
        _octets,
    ),
    Rule(
        "SECRET",
        ("pass", "pw", "pin", "code"),
        None,
        re.compile(
            rf"\b{_PASSWORD}\b(?:\s+(?:for|to|of)\s+(?:(?:the|my|our|this)\s+)?[\w-]+)?"
            r"(?:\s+(?:is|was)|\s*[:=])?\s+[\"'\u201c]?(?P<value>[^\s\"'\u201d<>,;]{6,}[^\s\"'\u201d<>,;.])",
            re.IGNORECASE,
        ),
        _chosen,
        _SECRET_WORDS,
    ),
    Rule(
        "SECRET",
        ("pass:", "pass=", "pass ="),
        None,
        re.compile(r"\bpass\s?[:=]\s*[\"']?(?P<value>[^\s\"'<>,;]{8,})", re.IGNORECASE),
        _chosen,
    ),
    Rule(
        "SECRET",
        ("basic",),
        re.compile(r"\bbasic\s+[a-z0-9+/]{8}"),
        re.compile(r"\bBasic\s+(?P<value>[A-Za-z0-9+/]{8,}={0,2})(?![\w+/=])", re.IGNORECASE),
        _login,
    ),
    Rule(
        "SECRET",
        ("key", "secret", "token"),
        re.compile(
            r"(?:key|secret|token|access)[\"']?(?:\s*[:=]\s*|\s+)[\"']?[a-z0-9+/_.~-]{20}"
        ),
        re.compile(
            r"\b[\w-]*(?:api[-_]?key|secret(?:[-_]access)?(?:[-_]key)?|access[-_]?key|token"
            r"|account[-_]?key)[\"']?(?:\s*[:=]\s*|\s+)[\"']?"
            r"(?P<value>[A-Za-z0-9+/_.~-]{20,}={0,2})(?![\w+/=])",
            re.IGNORECASE,
        ),
        _drawn,
    ),
    Rule(
        "SECRET",
        ("://", "-u ", "--user "),
        re.compile(r"://[^\s/]*@|(?:-u|--user)\s"),
        re.compile(r"(?:://[^\s/:@]*|(?:\s-u|--user)\s+[^\s:]+):(?P<value>[^\s/@]{4,})(?=@|\s|$)"),
        _chosen,
    ),
    Rule(
        "SECRET",
        ("xox", "k_live_", "k_test_", "gocspx-"),
        None,
        re.compile(r"\b(?:xox[abeprs]-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|GOCSPX-[\w-]{16,})"),
    ),
    Rule(
        "TELEMETRY",
        ("clid=", "clkid=", "igshid=", "_eid="),
        None,
        re.compile(
            r"\b(?:fb|g|d|tt|tw|y|wb|gb)clid=(?P<value>[\w.-]{8,})"
            r"|\b(?:msclkid|igshid|mc_eid)=(?P<more>[\w.-]{8,})"
        ),
    ),
    Rule(
        "TELEMETRY",
        ("cookie:",),
        None,
        re.compile(
            r"(?<=[\s;])(?:sid|uid|\w*sess\w*|connect\.sid|_ga|_gid|visitor\w*)="
            r"(?P<value>[^;\s\"']{12,})",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "WALLET",
        ("0x",),
        re.compile(r"0x[0-9a-f]{40}"),
        re.compile(r"\b0x[0-9a-fA-F]{40}\b"),
    ),
    Rule(
        "HOST",
        ("ssh", "scp", "sftp"),
        re.compile(r"\w@[a-z]"),
        re.compile(
            r"\b(?:ssh|scp|sftp)\s(?:[^\n@]*\s)?[\w-]+@(?P<value>[a-z][a-z0-9-]*)(?![\w.@-])",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "HOST",
        (".internal.", ".intranet.", ".corp.", ".lan."),
        None,
        re.compile(
            r"\b(?:[a-z0-9-]+\.)+(?:internal|intranet|corp|lan)(?:\.[a-z0-9-]+)*\.[a-z]{2,}\b",
            re.IGNORECASE,
        ),
    ),
)  # fmt: skip

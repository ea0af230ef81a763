"""The detector: Presidio recognisers, detect-secrets and token rules behind one port.

Entity types are chosen for data that trains tool calls. Dates, public URLs, places and bare digit
runs are arguments there, not personal data: Presidio's DATE_TIME, URL, bank-account, passport and
driver-licence recognisers are left out, and a phone number needs the look of one (a `+`, brackets
or groups) or a word such as 'call' before it. Names are a review signal, never a block
(`services.curation.names`).

Nothing here touches the network: public suffixes come from tldextract's bundled snapshot, and
detect-secrets runs without its verification filter.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from services.curation.adapters.light_import import hidden
from services.curation.phrased import PHRASED
from services.curation.redaction import Span
from services.curation.spelled import RULES, matched

THRESHOLD = 0.35

_KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "IP_ADDRESS": "IP",
    "MAC_ADDRESS": "MAC",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN",
    "CRYPTO": "WALLET",
    "US_SSN": "NATIONAL_ID",
    "US_ITIN": "NATIONAL_ID",
    "UK_NINO": "NATIONAL_ID",
    "ES_NIF": "NATIONAL_ID",
    "ES_NIE": "NATIONAL_ID",
    "IT_FISCAL_CODE": "NATIONAL_ID",
}
_HAS_AT = re.compile("@")
_HAS_DIGIT = re.compile(r"\d")
_HAS_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")
_HAS_ADDRESS = re.compile(r"\d\.\d|[0-9A-Fa-f]?:[0-9A-Fa-f:]")
_RECOGNISERS = {
    "CreditCardRecognizer": _HAS_SEVEN_DIGITS,
    "CryptoRecognizer": _HAS_DIGIT,
    "IbanRecognizer": _HAS_SEVEN_DIGITS,
    "IpRecognizer": _HAS_ADDRESS,
    "MacAddressRecognizer": re.compile(r"[0-9A-Fa-f]{2}[:.-][0-9A-Fa-f]{2}"),
    "PhoneRecognizer": _HAS_SEVEN_DIGITS,
    "UsSsnRecognizer": _HAS_SEVEN_DIGITS,
    "UsItinRecognizer": _HAS_SEVEN_DIGITS,
    "UkNinoRecognizer": _HAS_DIGIT,
    "EsNifRecognizer": _HAS_SEVEN_DIGITS,
    "EsNieRecognizer": _HAS_SEVEN_DIGITS,
    "ItFiscalCodeRecognizer": _HAS_DIGIT,
}
"""Recogniser → what a text must hold for it to match at all. Skipping is most of the speed."""

_RULES: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    (
        "SECRET",
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
    ("SECRET", ("aiza",), re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
    ("SECRET", ("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("SECRET", ("npm_",), re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("SECRET", ("sk-",), re.compile(r"\bsk-(?:proj|ant|svcacct|admin|or)-[A-Za-z0-9_-]{16,}")),
    (
        "SECRET",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
        re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,}|glpat-[\w-]{20,})"),
    ),
    ("SECRET", ("bearer",), re.compile(r"\bBearer\s+(?P<value>[A-Za-z0-9._~+/-]{20,}=*)")),
    (
        "HOST",
        (".in", ".lo", ".la", ".corp", ".home"),
        re.compile(
            r"\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+"
            r"(?:internal|intranet|local|localdomain|lan|corp|home\.arpa)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "HOST",
        ("://",),
        re.compile(
            r"\b(?:https?|ssh|ftp|ldaps?|redis|mongodb|postgres(?:ql)?|mysql|amqp|nats)://"
            r"(?:[^\s/@\"']+@)?(?P<value>(?!(?:localhost|host(?:name)?|server|domain|address|your)\b)[a-z][a-z0-9-]*)(?=[:/\"'\s]|$)"
            r"(?![^\s/\"']*@)",
            re.IGNORECASE,
        ),
    ),
    ("HOST", ("\\\\",), re.compile(r"(?<![\w%:\\.)])\\\\(?P<value>[A-Za-z][\w.-]+)\\(?!\\)")),
)
"""(type, what a text in lower case must hold one of, pattern)."""

_WRITTEN = (*RULES, *PHRASED)
_NUMBERED = re.compile(
    r"(?:sections?|chapters?|clauses?|versions?|releases?|build|paragraphs?|figures?|\u00a7|\bv)"
    r"\s?$",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"\d\.$")
_SUFFIXED = re.compile(r"-(?:alpha|beta|rc|dev|post|pre)", re.IGNORECASE)
_PHONE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|cell|mobile|call|fax|sms|text|whatsapp|dial|ring)\b[^\d\n]{0,24}$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}|\d{4}\s?[-–/]\s?\d{4}"
)
_GROUPED = re.compile(r"\(?\d{2,4}\)?[-. ]\d{3,4}[-. ]\d{3,4}|\(\d{2,4}\)\s?[\d -]{5,}")
_FIELD_WORD = re.compile(r"(?:phone|mobile|fax|tel)\w*[\"']?\s*[:=]\s*\[?\s*[\"']?$", re.IGNORECASE)


def looks_like_a_phone(text: str, start: int, end: int) -> bool:
    """Whether a digit run that could be dialled is written, or introduced, as a phone number."""
    value = text[start:end].strip()
    if _DATE.fullmatch(value) or re.fullmatch(r"\d+[.,]\d+", value):
        return False
    if text[max(0, start - 1) : start] in {"$", "€", "£", "/", "#"}:
        return False
    before = text[max(0, start - 40) : start]
    if "+" in value or before.endswith("+"):
        return True
    if _PHONE_WORD.search(before) or _FIELD_WORD.search(before):
        return True
    return bool(_GROUPED.fullmatch(value))


class PiiDetector:
    """Presidio + detect-secrets + token rules. Heavy imports happen on first use."""

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of every text; kinds are placeholder names (`EMAIL`, `SECRET`)."""
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        spans = {
            text: [*self._personal(text), *_by_rule(text), *matched(_WRITTEN, text)]
            for text in distinct
        }
        for index, span in _secrets(distinct):
            spans[distinct[index]].append(span)
        return [list(spans.get(text, ())) for text in texts]

    def _personal(self, text: str) -> Iterator[Span]:
        tried: dict[re.Pattern[str], bool] = {}
        for recogniser, entities, possible in self._recognisers:
            if possible not in tried:
                tried[possible] = possible.search(text) is not None
            if not tried[possible]:
                continue
            for result in recogniser.analyze(text, entities, self._no_artifacts) or ():
                if result.score < THRESHOLD or result.entity_type not in _KINDS:
                    continue
                kind = _KINDS[result.entity_type]
                start, end = _trimmed(text, result.start, result.end)
                if kind == "PHONE" and not looks_like_a_phone(text, start, end):
                    continue
                if kind == "CREDIT_CARD" and _FRACTION.search(text[max(0, start - 2) : start]):
                    continue
                if kind == "IP" and not _specific_address(text, start, end):
                    continue
                yield Span(start, end, kind)

    @cached_property
    def _recognisers(self) -> list[tuple[Any, list[str], re.Pattern[str]]]:
        import tldextract

        with hidden("torch", "transformers", "stanza", "tensorflow", "jax", "cupy", "mxnet"):
            import presidio_analyzer.predefined_recognizers as predefined

        offline = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

        class OfflineEmailRecognizer(predefined.EmailRecognizer):
            def validate_result(self, pattern_text: str) -> bool:
                return bool(offline(pattern_text).fqdn)

        made = [(OfflineEmailRecognizer(), _HAS_AT)]
        made += [
            (getattr(predefined, name)(supported_language="en"), possible)
            for name, possible in _RECOGNISERS.items()
        ]
        return [(r, list(r.supported_entities), possible) for r, possible in made]

    @cached_property
    def _no_artifacts(self) -> Any:
        from presidio_analyzer.nlp_engine import NlpArtifacts

        artifacts: Any = NlpArtifacts
        return artifacts(
            entities=[], tokens=[], tokens_indices=[], lemmas=[], nlp_engine=None, language="en"
        )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _specific_address(text: str, start: int, end: int) -> bool:
    """`::`, `0.0.0.0` and loopback name no one's machine; a section's number names none either."""
    if _NUMBERED.search(text[max(0, start - 12) : start]) or _SUFFIXED.match(text, end):
        return False
    return text[start:end] not in {"::", "::1", "0.0.0.0", "127.0.0.1"}


def _by_rule(text: str) -> Iterator[Span]:
    lowered = text.lower()
    for kind, hints, pattern in _RULES:
        if not any(hint in lowered for hint in hints):
            continue
        group = "value" if "value" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            yield Span(match.start(group), match.end(group), kind)


_SECRET_PLUGINS = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector",
    "CloudantDetector", "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector",
    "IbmCloudIamDetector", "IbmCosHmacDetector", "JwtTokenDetector", "KeywordDetector",
    "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PypiTokenDetector", "SendGridDetector",
    "SlackDetector", "SoftlayerDetector", "SquareOAuthDetector", "StripeDetector",
    "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
_SECRET_SETTINGS: dict[str, Any] = {
    "plugins_used": [
        *({"name": name} for name in _SECRET_PLUGINS),
        {"name": "Base64HighEntropyString", "limit": 4.5},
        {"name": "HexHighEntropyString", "limit": 3.0},
    ],
    "filters_used": [
        {"path": f"detect_secrets.filters.heuristic.{name}"}
        for name in (
            "is_potential_uuid",
            "is_sequential_string",
            "is_templated_secret",
            "is_prefixed_with_dollar_sign",
        )
    ],
}


_ASSIGNED = re.compile(
    r"(?:pass|pwd|secret|key|token|auth|credential|contrase)[^\n]{0,40}?[:=\"'<>;`]", re.IGNORECASE
)
_ASSIGNING = ("pass", "pwd", "secret", "key", "token", "auth", "credential", "contrase")
_MARKS = ("AKIA", "ASIA", "xox", "BEGIN")
_LOGIN = re.compile(r"://[^\s/]*@")
_LONG = re.compile(r"[A-Za-z0-9+/=_.-]{16,}")


def may_hold_a_secret(line: str) -> bool:
    """Whether detect-secrets can find anything; a line costs it milliseconds.

    Its keyword detector wants an assignment or a quote after the word.
    """
    lowered = line.lower()
    if any(mark in line for mark in _MARKS) or ("://" in line and _LOGIN.search(line)):
        return True
    if any(_HAS_DIGIT.search(found.group()) for found in _LONG.finditer(line)):
        return True
    return any(word in lowered for word in _ASSIGNING) and _ASSIGNED.search(line) is not None


_INDIRECT = re.compile(r"[\w.-]+[\[(][^\n]*[\])]")
"""`password = ask_for_it()`: the library's own filter for it costs 15 ms on a line of prose."""


def _secrets(texts: Sequence[str]) -> Iterator[tuple[int, Span]]:
    """(text index, span) of every secret. One private temporary file serves the whole batch."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import transient_settings

    lines: list[tuple[int, int, str]] = []
    for index, text in enumerate(texts):
        at = 0
        for line in text.splitlines(keepends=True):
            if may_hold_a_secret(line):
                lines.append((index, at, line.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")))
            at += len(line)
    if not lines:
        return
    handle, name = tempfile.mkstemp(prefix="sluice-scan-", suffix=".txt")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as out:
            out.writelines(line + "\n" for _, _, line in lines)
        with transient_settings(_SECRET_SETTINGS):
            found = sorted(
                {(s.line_number, s.secret_value, s.type) for s in scan_file(name) if s.secret_value}
            )
    finally:
        Path(name).unlink()
    for number, value, kind in found:
        index, at, line = lines[number - 1]
        start = line.find(value)
        if kind == "Secret Keyword" and _INDIRECT.match(line, max(start, 0)):
            continue
        while start >= 0:
            yield index, Span(at + start, at + start + len(value), "SECRET")
            start = line.find(value, start + len(value))

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
from services.curation.named import NAMED
from services.curation.phrased import PHRASED
from services.curation.redaction import Span
from services.curation.spelled import RULES, Rule, Rules

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
_HAS_ADDRESS = re.compile(
    r"\d\.\d{1,3}\.\d|[0-9A-Fa-f]::|::[0-9A-Fa-f]|:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:"
)
_HAS_MAC = re.compile(
    r"[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|[0-9A-Fa-f]\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]"
)
_HAS_FISCAL_CODE = re.compile(
    r"[^\W\d_]{6}[\dL-NP-V]{2}[A-EHLMPR-T][\dL-NP-V]{2}[^\W\d_][\dL-NP-V]{3}", re.IGNORECASE
)
_RECOGNISERS = {
    "CreditCardRecognizer": _HAS_SEVEN_DIGITS,
    "CryptoRecognizer": re.compile(r"[0-9A-Za-z]{26}"),
    "IbanRecognizer": _HAS_SEVEN_DIGITS,
    "IpRecognizer": _HAS_ADDRESS,
    "MacAddressRecognizer": _HAS_MAC,
    "PhoneRecognizer": _HAS_SEVEN_DIGITS,
    "UsSsnRecognizer": re.compile(r"\d[- .]\d{2}[- .]\d{4}"),
    "UsItinRecognizer": re.compile(r"9\d{2}[- ]\d{2}[- ]\d{4}"),
    "UkNinoRecognizer": re.compile(r"\d{2} ?\d{2} ?\d{2} ?[A-Da-d]\b"),
    "EsNifRecognizer": re.compile(r"\d{7}-?[A-Za-z]"),
    "EsNieRecognizer": re.compile(r"\d{7}-?[A-Za-z]"),
    "ItFiscalCodeRecognizer": _HAS_FISCAL_CODE,
}
"""Recogniser → what a text must hold for it to find anything that scores above the threshold.
Skipping is most of the speed."""
_WITHOUT_DIGITS = frozenset({_HAS_AT, _HAS_ADDRESS, _HAS_MAC})

_TOKENS: tuple[Rule, ...] = (
    Rule(
        "SECRET",
        ("private key",),
        None,
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
    Rule("SECRET", ("aiza",), None, re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
    Rule("SECRET", ("hf_",), None, re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    Rule("SECRET", ("npm_",), None, re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    Rule(
        "SECRET",
        ("sk-",),
        None,
        re.compile(r"\bsk-(?:proj|ant|svcacct|admin|or)-[A-Za-z0-9_-]{16,}"),
    ),
    Rule(
        "SECRET",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
        None,
        re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,}|glpat-[\w-]{20,})"),
    ),
    Rule(
        "SECRET", ("bearer",), None, re.compile(r"\bBearer\s+(?P<value>[A-Za-z0-9._~+/-]{20,}=*)")
    ),
    Rule(
        "HOST",
        (".in", ".lo", ".la", ".corp", ".home"),
        None,
        re.compile(
            r"\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+"
            r"(?:internal|intranet|local|localdomain|lan|corp|home\.arpa)\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "HOST",
        ("://",),
        re.compile(r"://(?:[^\s/@\"']+@)?[a-z][a-z0-9-]*(?=[:/\"'\s]|$)"),
        re.compile(
            r"\b(?:https?|ssh|ftp|ldaps?|redis|mongodb|postgres(?:ql)?|mysql|amqp|nats)://"
            r"(?:[^\s/@\"']+@)?(?P<value>(?!(?:localhost|host(?:name)?|server|domain|address|your)\b)[a-z][a-z0-9-]*)(?=[:/\"'\s]|$)"
            r"(?![^\s/\"']*@)",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "HOST",
        ("\\\\",),
        None,
        re.compile(r"(?<![\w%:\\.)])\\\\(?P<value>[A-Za-z][\w.-]+)\\(?!\\)"),
    ),
)
_WRITTEN = Rules((*_TOKENS, *RULES, *PHRASED, *NAMED))
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


_MAY_BE_A_PHONE = re.compile(
    r"\+\D{0,10}\d"
    r"|\b(?:phone|telephone|tel|cell|mobile|call|fax|sms|text|whatsapp|dial|ring)\b[^\d\n]{0,32}\d"
    rf"|{_GROUPED.pattern}",
    re.IGNORECASE,
)
_MAY_BE_A_FIELD = re.compile(r"(?:phone|mobile|fax|tel)\w*[\"']?\s*[:=]", re.IGNORECASE)


def _dialled(text: str) -> Iterator[tuple[int, str]]:
    """(place, line) of the lines in which `looks_like_a_phone` can be true of anything.

    The telephone library reads what it is given once for every region, and no number crosses lines.
    """
    named = _MAY_BE_A_FIELD.search(text) is not None
    at = 0
    for line in text.split("\n"):
        if _HAS_DIGIT.search(line) and (named or _MAY_BE_A_PHONE.search(line)):
            yield at, line
        at += len(line) + 1


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

    def __reduce__(self) -> tuple[type[PiiDetector], tuple[()]]:
        """Another process loads its own libraries."""
        return type(self), ()

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of every text; kinds are placeholder names (`EMAIL`, `SECRET`)."""
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        spans = {text: [*self._personal(text), *_WRITTEN.matched(text)] for text in distinct}
        for index, span in _secrets(distinct):
            spans[distinct[index]].append(span)
        return [list(spans.get(text, ())) for text in texts]

    def _personal(self, text: str) -> Iterator[Span]:
        tried: dict[re.Pattern[str], bool] = {}
        numbered = _HAS_DIGIT.search(text) is not None
        for recogniser, entities, possible in self._recognisers:
            if not numbered and possible not in _WITHOUT_DIGITS:
                continue
            if possible not in tried:
                tried[possible] = possible.search(text) is not None
            if not tried[possible]:
                continue
            parts = _dialled(text) if entities == ["PHONE_NUMBER"] else ((0, text),)
            for at, part in parts:
                for result in recogniser.analyze(part, entities, self._no_artifacts) or ():
                    if result.score >= THRESHOLD and result.entity_type in _KINDS:
                        kind = _KINDS[result.entity_type]
                        start, end = _trimmed(text, at + result.start, at + result.end)
                        if _meant(kind, text, start, end):
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


def _meant(kind: str, text: str, start: int, end: int) -> bool:
    """Whether what surrounds a value lets it be one of its kind."""
    if kind == "PHONE":
        return looks_like_a_phone(text, start, end)
    if kind == "CREDIT_CARD":
        return not _FRACTION.search(text[max(0, start - 2) : start])
    return kind != "IP" or _specific_address(text, start, end)


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
    r"(?:pass|pwd|secret|key|token|auth|credential|contrase)[^\n]{0,40}?[:=\"'<>;`]"
)
_ASSIGNING = ("pass", "pwd", "secret", "key", "token", "auth", "credential", "contrase")
_MARKS = ("AKIA", "ASIA", "xox", "BEGIN")
_LOGIN = re.compile(r"://[^\s/]*@")
_LONG = re.compile(r"[A-Za-z0-9+/=_.-]{16,}")


def may_hold_a_secret(text: str) -> bool:
    """Whether detect-secrets can find anything in a line; a line costs it milliseconds.

    Its keyword detector wants an assignment or a quote after the word.
    """
    if any(mark in text for mark in _MARKS) or ("://" in text and _LOGIN.search(text)):
        return True
    if any(_HAS_DIGIT.search(found) for found in _LONG.findall(text)):
        return True
    lowered = text.lower()
    return any(word in lowered for word in _ASSIGNING) and _ASSIGNED.search(lowered) is not None


_INDIRECT = re.compile(r"[\w.-]+[\[(][^\n]*[\])]")
"""`password = ask_for_it()`: the library's own filter for it costs 15 ms on a line of prose."""


def _secrets(texts: Sequence[str]) -> Iterator[tuple[int, Span]]:
    """(text index, span) of every secret. One private temporary file serves the whole batch."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import transient_settings

    lines: list[tuple[int, int, str]] = []
    for index, text in enumerate(texts):
        at = 0
        if not may_hold_a_secret(text):
            continue
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

"""Values that what stands beside them names: national ids, device ids, hosts of commands (C3).

Most of the world's national ids are a run of digits that nothing tells from an order number, so a
word must name the kind; where the kind has a check digit, the digits must pass it. The words are
those of the languages that the kinds come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.curation.spelled import Rule, luhn


def _digits(value: str) -> list[int]:
    return [int(character) for character in re.findall(r"\d", value)]


def _modulo(value: str, weights: Sequence[int], by: int) -> bool:
    digits = _digits(value)
    return len(digits) == len(weights) and not (
        sum(a * b for a, b in zip(digits, weights, strict=True)) % by
    )


def _birth_number(value: str) -> bool:
    """Norway: two check digits modulo 11 (Skatteetaten, fødselsnummer)."""
    return _modulo(value[:-1], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1), 11) and _modulo(
        value, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11
    )


def _pesel(value: str) -> bool:
    """Poland: weights 1, 3, 7, 9 modulo 10 (ustawa o ewidencji ludności)."""
    return _modulo(value, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10)


def _bsn(value: str) -> bool:
    """The Netherlands: the eleven test, the last digit counted as minus one."""
    return _modulo(value, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11)


def _cpf(value: str) -> bool:
    """Brazil: two check digits modulo 11 (Receita Federal)."""
    digits = _digits(value)
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(d * w for d, w in zip(digits, range(length + 1, 1, -1), strict=False))
        if total * 10 % 11 % 10 != digits[length]:
            return False
    return True


def _by_checks(value: str) -> bool:
    compact = re.sub(r"[\s.-]", "", value)
    return any(check(compact) for check in (_birth_number, _pesel, _bsn, _cpf)) or (
        len(compact) in {10, 12} and luhn(compact[-10:])
    )


def _some_digits(value: str) -> bool:
    """A number of a document: at least five digits."""
    return len(_digits(value)) >= 5


def _strong(value: str) -> bool:
    """A chosen secret: letters, digits, and a sign that no identifier or path has."""
    return all(re.search(kind, value) for kind in ("[A-Za-z]", r"\d", r"[^\w\s./()\[\]-]"))


def _mixed(value: str) -> bool:
    """Letters and digits."""
    return bool(re.search("[A-Za-z]", value)) and bool(re.search(r"\d", value))


def _trunk(value: str) -> bool:
    """A national number with its leading zero: ten or eleven digits."""
    return 10 <= len(_digits(value)) <= 11


def _grouped(value: str) -> bool:
    """Eight to fifteen digits (ITU-T E.164) that are no date."""
    date = re.match(r"(?:19|20)\d\d-\d\d-\d\d", value)
    return 8 <= len(_digits(value)) <= 15 and not date


def _private(value: str) -> bool:
    """RFC 1918, written with dashes or as one hexadecimal number."""
    if value.lower().startswith("0x"):
        octets = list(int(value, 16).to_bytes(4, "big"))
    else:
        octets = [int(part) for part in value.split("-")]
    return all(octet <= 255 for octet in octets) and (
        octets[0] == 10 or octets[:2] == [192, 168] or (octets[0] == 172 and 16 <= octets[1] <= 31)
    )


_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_NUMBER = r"(?:\s*(?:no\.?|nr\.?|number|num\.?|#|is|:|=))*\s*[\"']?"

NAMED: tuple[Rule, ...] = (
    Rule(
        "NATIONAL_ID",
        tuple("0123456789"),
        re.compile(r"\d(?:[\s.-]?\d){8}"),
        re.compile(
            r"\b(?:f(?:ø|o)dselsnummer|personnummer|personal identity|pesel|bsn|sofinummer|cpf)\b"
            rf"{_NUMBER}(?P<value>\d(?:[\s.-]?\d){{8,11}})(?![\d.-]*\d)",
            re.IGNORECASE,
        ),
        _by_checks,
        frozenset({"fødselsnummer", "fodselsnummer", "personnummer", "personal", "pesel", "bsn"})
        | {"sofinummer", "cpf"},
    ),
    Rule(
        "NATIONAL_ID",
        tuple("0123456789"),
        re.compile(r"\d{3}[- ]\d{2}[- ]\d{4}"),
        re.compile(
            rf"\b(?:ssn|social security)\b{_NUMBER}(?P<value>\d{{3}}[- ]\d{{2}}[- ]\d{{4}})(?!\d)",
            re.IGNORECASE,
        ),
        words=frozenset({"ssn", "social"}),
    ),
    Rule(
        "NATIONAL_ID",
        tuple("0123456789"),
        re.compile(r"\d{3}"),
        re.compile(
            r"\b(?:passport|reisepass|pasaporte|(?:national|identity|id) card|personalausweis"
            r"|driv(?:er'?s?|ing) licen[cs]e|aadhaar|medicare|steuer-?id|tax id|nhs)\b"
            rf"{_NUMBER}(?P<value>[A-Z]{{0,3}}(?-i:[\dA-Z])(?:[ -]?[A-Z]?\d){{5,13}}[A-Z]?)"
            r"(?![\w-])",
            re.IGNORECASE,
        ),
        _some_digits,
        frozenset({"passport", "reisepass", "pasaporte", "card", "personalausweis", "driver"})
        | {"drivers", "driving", "aadhaar", "medicare", "steuer", "steuerid", "tax", "nhs"},
    ),
    Rule(
        "TELEMETRY",
        ("idfa", "idfv", "gaid", "aaid", "adid", "imei", " id", "_id", "uuid"),
        re.compile(r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}"),
        re.compile(
            r"\b(?:idf[av]|[ga]aid|adid|(?:advertising|device|install(?:ation)?|visitor|session"
            rf"|tracking|vendor)[ _-]?(?:uu)?id)\b{_NUMBER}(?P<value>{_UUID})\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "TELEMETRY",
        ("imei",),
        re.compile(r"\d{15}|\d{2}-\d{6}-\d{6}-\d"),
        re.compile(
            rf"\bimei\b{_NUMBER}(?P<value>\d{{15}}|\d\d-\d{{6}}-\d{{6}}-\d)\b", re.IGNORECASE
        ),
        luhn,
    ),
    Rule(
        "TELEMETRY",
        ("_ga", "_gid", "_fbp"),
        None,
        re.compile(r"\b_(?:ga|gid|fbp)\b\s*[:=]\s*(?P<value>(?:GA|fb)\d?\.\d\.\d{6,}\.\d{6,})"),
    ),
    Rule(
        "MAC",
        ("mac", "hwaddr", "ether", "bssid"),
        re.compile(r"[0-9a-f]{12}"),
        re.compile(
            r"\b(?:mac(?:[ _-]?addr(?:ess)?)?|hwaddr|ether|bssid)\b"
            rf"{_NUMBER}(?P<value>[0-9a-f]{{12}})\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "IP",
        ("-", "0x"),
        re.compile(r"\d{1,3}-\d{1,3}-\d{1,3}-\d|0x[0-9a-f]{8}"),
        re.compile(
            r"(?<![\w.-])(?:ip-(?P<value>\d{1,3}(?:-\d{1,3}){3})"
            r"|(?P<more>192-168-\d{1,3}-\d{1,3}|0x[0-9a-fA-F]{8}))(?![\w-])"
        ),
        _private,
    ),
    Rule(
        "HOST",
        ("rsync", "scp", "sftp", "ssh", "git@"),
        re.compile(r"\w@[a-z][a-z0-9-]*:"),
        re.compile(
            r"(?<![\w.@])[\w-]+@(?P<value>(?!(?:host|server|example|machine)\b)[a-z][a-z0-9-]*)"
            r"(?=:[~/\w])",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "HOST",
        ("smb://", "cifs://", "nfs://", "sftp://", "rsync://", "rtsp://", "vnc://", "rdp://",
         "tcp://", "telnet://", "mqtt://", "jdbc:", "kafka://", "ws://", "wss://"),
        None,
        re.compile(
            r"\b(?:smb|cifs|nfs|sftp|rsync|rtsp|vnc|rdp|tcp|telnet|mqtt|kafka|wss?|jdbc:\w+)://"
            r"(?:[^\s/@\"']+@)?(?P<value>(?!(?:localhost|host(?:name)?|server|example)\b)"
            r"[a-z][a-z0-9-]*)(?=[:/\"'\s]|$)(?![^\s/\"']*@)",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "HOST",
        ("[.]", "(.)", "[dot]"),
        None,
        re.compile(
            r"\b[a-z0-9-]+(?:(?:\.|\[\.\]|\(\.\)|\[dot\])[a-z0-9-]+)*(?:\[\.\]|\(\.\)|\[dot\])"
            r"(?:internal|intranet|local|lan|corp|home(?:\.|\[\.\]|\(\.\))arpa)\b"
            r"|\b[a-z0-9-]+(?:\[\.\]|\(\.\)|\[dot\])home(?:\.|\[\.\]|\(\.\)|\[dot\])arpa\b",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "SECRET",
        ("pass", "pin", "login", "log in", "credential"),
        None,
        re.compile(
            r"\b(?:type|enter|use|try|with)\s+[\"'`]?(?P<value>[^\s\"'`,;]{8,})[\"'`]?"
            r"(?=\s[^\n.]{0,40}\b(?:password|passphrase|passcode|pin|log ?in|credentials?)\b)",
            re.IGNORECASE,
        ),
        _strong,
    ),
    Rule(
        "SECRET",
        ("password", "passphrase", "passcode"),
        None,
        re.compile(
            r"\b(?:password|passphrase|passcode)(?:'s|\s+(?:will be|became|to|still))\s+[\"'`]?"
            r"(?P<value>[^\s\"'`,;]{6,}[^\s\"'`,;.])",
            re.IGNORECASE,
        ),
        _mixed,
    ),
    Rule(
        "SECRET",
        ("admin", "root", "guest", "login", "user"),
        None,
        re.compile(
            r"(?<![\w/.~-])(?:admin(?:istrator)?|root|guest|login|user)\s*[/|]\s*"
            r"(?P<value>[^\s\"'<>,;/|]{6,})(?!/)",
            re.IGNORECASE,
        ),
        _strong,
    ),
    Rule(
        "SECRET",
        ("mysql", "mysqldump", "sshpass", "mariadb", "7z"),
        None,
        re.compile(
            r"\b(?:mysql(?:dump|admin)?|mariadb|sshpass|7z)\b[^\n]*?\s-p(?P<value>[^\s\"']{6,})"
        ),
        _mixed,
    ),
    Rule(
        "EMAIL",
        ("arroba", "punt", "ponto", "(a)", "chez", "snabel", "(at)", "[at]"),
        None,
        re.compile(
            r"[\w+.-]+\s?[\[({]?\s?(?:at|arroba|chez|snabel-?a|a)\s?[\])}]?\s?[a-z0-9-]+"
            r"(?:\s?[\[({]\s?(?:dot|punkte?|punto?|ponto|point)\s?[\])}]\s?[a-z0-9-]+)+"
            r"|[\w+.-]+\s(?:arroba|snabel-?a)\s[a-z0-9-]+(?:\s(?:punkte?|punto?|ponto|point)\s[a-z]{2,})+",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "PHONE",
        ("0",),
        re.compile(r"\(0\)|\b0\d"),
        re.compile(
            r"(?<![\w.,/-])(?<!chapter )(?<!section )(?<!order )(?<!ticket )(?<!case )"
            r"(?:\(0\)\s?\d{2,4}|0\d{2,4})[ -]\d{3,4}[ -]\d{3,4}(?![\w.,:/-]*\d)"
        ),
        _trunk,
    ),
    Rule(
        "PHONE",
        tuple("0123456789"),
        re.compile(r"\d(?:[ ().-]{0,2}\d){6}"),
        re.compile(
            r"\b(?:emergency contact|contact|secretary|reception|office|kontor|büro|hotline"
            r"|after hours|front desk|home|landline|extension|clinic)\b[^\d\n+]{0,20}"
            r"(?P<value>\+?\(?\d{1,5}\)?(?:[ -]\(?\d{2,4}\)?){2,5}(?: \d)?)(?![\w.,:/-]*\d)",
            re.IGNORECASE,
        ),
        _grouped,
        frozenset({"contact", "secretary", "reception", "office", "kontor", "büro", "hotline"})
        | {"hours", "desk", "home", "landline", "extension", "clinic"},
    ),
)  # fmt: skip

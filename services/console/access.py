"""Who may use the console, and from which pages.

On the loopback everyone on the machine may; elsewhere a token is asked for, as a bearer header or
signed in to a cookie. A rater may have a token of the rater's own, which opens the labelling page
and says who labels. A page of another site can make a browser post here, so a change must come
from our own origin, which browsers state and scripts cannot forge.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

COOKIE = "sluice_console"


def session_of(token: str) -> str:
    """The cookie's value: it proves the token and does not reveal it."""
    return hmac.new(token.encode(), b"sluice console session", hashlib.sha256).hexdigest()


def signed_in(token: str | None, *, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
    """Whether a request carries what `token` asks for. None asks for nothing."""
    if token is None:
        return True
    given = headers.get("authorization", "").removeprefix("Bearer ")
    by_header = hmac.compare_digest(given.encode(), token.encode())
    by_cookie = hmac.compare_digest(cookies.get(COOKIE, "").encode(), session_of(token).encode())
    return by_header or by_cookie


def rater_of(
    raters: Mapping[str, str], *, headers: Mapping[str, str], cookies: Mapping[str, str]
) -> str | None:
    """Whose token of `raters` (name → token) a request carries."""
    for name, token in raters.items():
        if signed_in(token, headers=headers, cookies=cookies):
            return name
    return None


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a change was asked for by our own page, or by no browser at all."""
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    if origin is None:  # every browser sends one with a POST; a command line does not
        return True
    return urlsplit(origin).netloc == headers.get("host")

"""Logging in to the broker: from a credentials file, or from the URL; and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from contracts.base import Service
from shared.errors import Misconfigured
from shared.settings import Settings

BUS = "bus"
"""The account of the streams; also the JetStream domain by which services name it."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the broker and its password."""

    user: str
    password: str

    @classmethod
    def of(cls, text: str) -> Login:
        """Parse `user:password`. Raises ValueError."""
        user, found, password = text.strip().partition(":")
        if not (user and found and password):
            raise ValueError("a login is `user:password`")
        return cls(user, password)

    def __str__(self) -> str:
        return f"{self.user}:{self.password}"

    def __repr__(self) -> str:
        return f"Login({self.user!r}, …)"


def credentials(settings: Settings) -> dict[str, Any]:
    """nats-py connect options for the configured login, if there is one. Raises Misconfigured."""
    login = login_of(settings)
    return {} if login is None else {"user": login.user, "password": login.password}


def login_of(settings: Settings) -> Login | None:
    """The login in the credentials file, or else in the URL. Raises Misconfigured."""
    if settings.nats_credentials is None:
        parts = urlsplit(settings.nats_url)
        if parts.username and parts.password:
            return Login(unquote(parts.username), unquote(parts.password))
        return None
    try:
        return Login.of(settings.nats_credentials.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"no login in {settings.nats_credentials}: {error}",
            mend="SLUICE_NATS_CREDENTIALS names a file that holds `user:password`",
        ) from error


def domain(settings: Settings) -> dict[str, str]:
    """nats-py JetStream options: a service reaches the streams in another account than its own."""
    login = login_of(settings)
    return {"domain": BUS} if login is not None and login.user in set(Service) else {}


def without_login(url: str) -> str:
    """The address alone, for people and logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

"""API keys: which tenant a caller is, and what it may do."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared.errors import Misconfigured

Scope = Literal["serve", "evaluate"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    tenant: str
    scopes: frozenset[Scope]


class Keys:
    """API key → caller."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = dict(callers)

    def caller(self, key: str) -> Caller | None:
        """The key's caller; every key is compared in constant time."""
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known.encode(), key.encode()):
                found = caller
        return found

    def key_of(self, tenant: str, scope: Scope) -> str | None:
        """A key of `tenant` with `scope`, for whoever boots the platform."""
        for key, caller in self._callers.items():
            if caller.tenant == tenant and scope in caller.scopes:
                return key
        return None

    @classmethod
    def load_or_create(cls, path: Path, *, tenants: Iterable[str] = ("local",)) -> Keys:
        """Read `path`; keys for `tenants` that have none are added. The file is mode 0600.

        Each tenant gets one key that may `serve` and one that may `serve` and `evaluate`.

        Raises:
            Misconfigured: the file is not readable as keys, or others can read it.

        """
        document: dict[str, dict[str, Any]] = {}
        if path.exists():
            if path.stat().st_mode & 0o077:
                raise Misconfigured(f"{path} can be read by others", mend=f"chmod 600 {path}")
            try:
                document = json.loads(path.read_text())
            except ValueError as error:
                raise Misconfigured(f"{path} is not JSON: {error}", mend="remove it") from error
        scopes: tuple[list[str], ...] = (["serve"], ["serve", "evaluate"])
        missing = [t for t in tenants if all(v["tenant"] != t for v in document.values())]
        for tenant in missing:
            for granted in scopes:
                name = f"sk-sluice-{secrets.token_urlsafe(24)}"
                document[name] = {"tenant": tenant, "scopes": granted}
        if missing:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_suffix(".part")
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as out:
                json.dump(document, out, indent=2)
            part.replace(path)
        return cls.of(document)

    @classmethod
    def of(cls, document: Mapping[str, Mapping[str, Any]]) -> Keys:
        """From `{key: {"tenant": …, "scopes": […]}}`."""
        return cls(
            {
                key: Caller(str(value["tenant"]), frozenset(value["scopes"]))
                for key, value in document.items()
            }
        )

"""API keys: which tenant a caller is, and what it may do (see `shared.keys` for the two kinds)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from contracts.base import Slug

Scope = Literal["serve", "evaluate", "administer"]

_TENANT: TypeAdapter[str] = TypeAdapter(Slug)
_CLIENT: frozenset[Scope] = frozenset({"serve"})
_ADMINISTER: frozenset[Scope] = frozenset({"administer"})
_PLATFORM: frozenset[Scope] = frozenset({"serve", "evaluate", "administer"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    tenant: str
    scopes: frozenset[Scope]


class Keys:
    """API key → caller. Every known key is compared, in constant time."""

    def __init__(
        self,
        service_secret: str,
        clients: Callable[[], Mapping[str, str]],
        *,
        administrators: Collection[str] = (),
    ) -> None:
        """`clients()` gives tenant → client key; it is asked again for a key it did not have.

        `administrators` are tenants whose client key may load, unload and pin their own adapters.
        """
        self._administrators = frozenset(administrators)
        self._service_secret = service_secret
        self._clients = clients
        self._known = dict(clients())

    def caller(self, key: str) -> Caller | None:
        """The key's caller, or None."""
        secret, _, tenant = key.rpartition(".")
        if secret and hmac.compare_digest(secret.encode(), self._service_secret.encode()):
            return Caller(tenant, _PLATFORM) if _is_tenant(tenant) else None
        found = self._client(key)
        if found is None:
            self._known = dict(self._clients())
            found = self._client(key)
        return found

    def _client(self, key: str) -> Caller | None:
        found = None
        for tenant, known in self._known.items():
            if hmac.compare_digest(known.encode(), key.encode()):
                more = _ADMINISTER if tenant in self._administrators else frozenset()
                found = Caller(tenant, _CLIENT | more)
        return found


def _is_tenant(text: str) -> bool:
    try:
        _TENANT.validate_python(text)
    except ValidationError:
        return False
    return True

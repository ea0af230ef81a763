"""Secrets the services of one installation share: created at first use, for their owner only.

Serving takes two kinds of API key. A *client key* belongs to one tenant. The *service key* belongs
to the platform: diagnosis, synthesis and evaluation name the tenant they act for after it
(`<secret>.<tenant>`), and may ask candidates that no user may reach yet.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from shared.settings import Settings

CLIENT_KEYS = "client.json"
SERVICE_KEY = "service.key"


def load_or_create(path: Path, content: str) -> str:
    """The file's text; `content` is written first if there is none. Mode 0600. Safe for racers."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as out:
                out.write(content)
            os.link(part, path)  # fails if another process was first
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)
    return path.read_text().strip()


def service_secret(settings: Settings) -> str:
    """The platform's own key to serving."""
    if settings.service_key:
        return settings.service_key
    return load_or_create(
        settings.home / "keys" / SERVICE_KEY, f"slk-service-{secrets.token_urlsafe(32)}"
    )


def service_key(settings: Settings, tenant: str) -> str:
    """What to send as the API key when acting for `tenant`."""
    return f"{service_secret(settings)}.{tenant}"


def client_keys(settings: Settings, *tenants: str) -> dict[str, str]:
    """Tenant → client key. Tenants without one get one."""
    path = settings.home / "keys" / CLIENT_KEYS
    fresh = {tenant: f"slk-{tenant}-{secrets.token_urlsafe(24)}" for tenant in tenants}
    known: dict[str, str] = json.loads(load_or_create(path, json.dumps(fresh, indent=1)))
    if missing := {t: key for t, key in fresh.items() if t not in known}:
        known |= missing
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as out:
            json.dump(known, out, indent=1)
        part.replace(path)
    return known

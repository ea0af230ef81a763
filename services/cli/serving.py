"""What the command line asks of serving itself, with the platform's key for a tenant."""

from __future__ import annotations

import httpx

from contracts.serving import AdapterListing, ServedAdapter
from services.cli.session import settings_here
from shared.errors import PermanentError, TransientError
from shared.keys import service_key

TIMEOUT_S = 120.0
"""Loading reads an adapter from the artifact store."""


class ServingAway(TransientError):
    """Serving cannot be reached."""


def adapters(tenant: str) -> AdapterListing:
    """The tenant's adapters. Raises ServingAway, or PermanentError with serving's own words."""
    return AdapterListing.model_validate(_ask("GET", "adapters", tenant))


def change(what: str, adapter: str, tenant: str) -> ServedAdapter:
    """Load, unload, pin or unpin; how it stands then. Raises as `adapters` does."""
    return ServedAdapter.model_validate(_ask("POST", f"adapters/{adapter}/{what}", tenant))


def _ask(method: str, path: str, tenant: str) -> object:
    settings = settings_here()
    url = f"{settings.serving_url}/{path}"
    try:
        answer = httpx.request(
            method,
            url,
            headers={"Authorization": f"Bearer {service_key(settings, tenant)}"},
            timeout=TIMEOUT_S,
        )
    except httpx.HTTPError as error:
        raise ServingAway(
            f"serving does not answer at {settings.serving_url}: {error!r}",
            mend="start it with `sluice up`, or set SLUICE_SERVING_URL",
        ) from error
    if answer.is_success:
        content: object = answer.json()
        return content
    try:
        said = answer.json()["error"]
        message, mend = said["message"].removesuffix(f". {said['mend']}."), said["mend"]
    except (ValueError, KeyError, TypeError):
        message, mend = f"{url} answered {answer.status_code}", "look at serving's log"
    raise PermanentError(message, mend=mend)

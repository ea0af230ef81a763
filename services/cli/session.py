"""A command's connection to the broker, and which broker that is.

`SLUICE_NATS_URL` names it; without it, the broker that `sluice up` started on this home (it leaves
its addresses in `<home>/up.json`), or else the default port.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from contracts.base import SLUG
from contracts.subjects import RunRef
from shared.errors import InvalidInput, Misconfigured, PermanentError, TransientError
from shared.messaging.accounts import OPERATOR, Logins
from shared.messaging.login import credentials, domain, without_login
from shared.settings import Settings

PROBE_TIMEOUT_S = 3.0


class BrokerAway(TransientError):
    """The broker cannot be reached."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open connection."""

    settings: Settings
    connection: Client
    js: JetStreamContext


def settings_here() -> Settings:
    """The settings, with the addresses of this home's `sluice up` where none are given."""
    settings = Settings()
    try:
        running = json.loads((settings.home / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings
    given = {
        name: running[name]
        for name in ("nats_url", "serving_url")
        if name in running and f"SLUICE_{name.upper()}" not in os.environ
    }
    settings = settings.model_copy(update=given)
    if settings.nats_credentials is None and settings.nats_url == running.get("nats_url"):
        login = {"nats_credentials": Logins(settings.home).path(OPERATOR)}  # of this broker alone
        settings = settings.model_copy(update=login)
    return settings


@asynccontextmanager
async def session(settings: Settings | None = None) -> AsyncIterator[Session]:
    """A connection that survives restarts of the broker.

    Raises:
        BrokerAway: nothing answers at the address.
        Misconfigured: the broker has no streams of ours.
        PermanentError: the broker refused a request.
    """
    settings = settings or settings_here()
    await _probe(settings.nats_url)
    try:
        connection = await nats.connect(
            settings.nats_url,
            name="sluice-cli",
            connect_timeout=PROBE_TIMEOUT_S,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            error_cb=_quiet,
            **credentials(settings),
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise _away(settings.nats_url, error) from error
    try:
        yield Session(settings, connection, connection.jetstream(timeout=5, **domain(settings)))
    except NotFoundError as error:
        if error.err_code != 10059:  # stream not found
            raise
        raise Misconfigured(
            f"the broker at {without_login(settings.nats_url)} lacks a stream",
            mend="run `sluice provision` (`sluice up` does)",
        ) from error
    except ServiceUnavailableError as error:
        raise Misconfigured(
            f"the broker at {without_login(settings.nats_url)} has no JetStream, or lacks a stream",
            mend="start nats-server with JetStream, then `sluice provision`",
        ) from error
    except APIError as error:
        raise PermanentError(
            f"the broker refused: {error.description} ({error.err_code})",
            mend="run `sluice doctor`",
        ) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise _away(settings.nats_url, error) from error
    finally:
        await connection.close()


async def _probe(url: str) -> None:
    """nats-py would retry the first connection for ever."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
    except (OSError, TimeoutError, ValueError) as error:
        raise _away(url, error) from error
    writer.close()


def _away(url: str, error: BaseException) -> BrokerAway:
    reason = str(error) or type(error).__name__
    return BrokerAway(
        f"the broker at {without_login(url)} cannot be reached: {reason}",
        mend="start it with `sluice up`, or name it with --nats-url or SLUICE_NATS_URL",
    )


async def _quiet(_error: Exception) -> None:
    """The client reconnects by itself; commands notice what matters by their own time-outs."""


def run_ref(name: str, tenant: str) -> RunRef:
    """`run` or `tenant/run`. Raises InvalidInput."""
    import re

    from contracts.base import Problem

    owner, _, run = name.rpartition("/")
    ref = RunRef(owner or tenant, run)
    for part, what in ((ref.tenant, "tenant"), (ref.run, "run")):
        if not re.fullmatch(SLUG, part):
            raise InvalidInput(
                [
                    Problem(
                        where=what,
                        problem=f"{part!r} is no {what} name",
                        mend="use 1-64 of a-z 0-9 _ -, as `run` or `tenant/run`",
                    )
                ]
            )
    return ref


def perform(work: Callable[[Session], Awaitable[Any]]) -> Any:
    """Run `work` in a session, to its end."""

    async def main() -> Any:
        async with session() as opened:
            return await work(opened)

    return asyncio.run(main())

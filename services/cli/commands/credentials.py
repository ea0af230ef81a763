"""`sluice credentials TENANT`: a tenant's own login to the broker."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import Json


def credentials(
    tenant: Annotated[str, typer.Argument(help="Whose.")],
    wait_s: Annotated[float, typer.Option(help="Seconds until a running broker knows it.")] = 15,
    json: Json = False,
) -> None:
    """Print the URL by which a tenant's programs reach NATS, with its login; make it if need be.

    With it a NATS client publishes this tenant's jobs and reads this tenant's runs, progress and
    alerts, and nothing else.
    """
    import asyncio

    from services.cli.reporting import emit
    from services.cli.session import settings_here
    from services.cli.supervision.selection import tenant_names
    from shared.messaging.accounts import Logins, tenant_user
    from shared.messaging.login import without_login

    (name,) = tenant_names([tenant]) or tenant_names(["-"])
    settings = settings_here()
    logins = Logins(settings.home)
    login, path = logins.login(tenant_user(name)), logins.path(tenant_user(name))
    address = without_login(settings.nats_url)
    url = address.replace("://", f"://{login}@", 1)
    if (settings.home / "up.json").exists():
        asyncio.run(_until_known(url, wait_s))
    if json:
        emit({"tenant": name, "url": url, "nats_url": address, "credentials": str(path)})
    else:
        print(url)


async def _until_known(url: str, wait_s: float) -> None:
    """Until the broker lets the login in and its streams are there. Raises Misconfigured."""
    import asyncio
    from contextlib import suppress

    import nats.errors
    from nats.aio.client import Client
    from nats.js.errors import Error as JetStreamError
    from nats.js.errors import NotFoundError

    from contracts.grants import TENANT_STREAMS
    from shared.errors import Misconfigured

    async def quiet(_error: Exception) -> None: ...

    async def known() -> bool:
        connection = Client()
        try:
            await connection.connect(url, allow_reconnect=False, connect_timeout=2, error_cb=quiet)
            for stream in TENANT_STREAMS:  # one that is there says that it holds no such message
                with suppress(NotFoundError):
                    await connection.jetstream(timeout=2).get_last_msg(stream, "none", direct=True)
            return True
        except (JetStreamError, nats.errors.Error, OSError, TimeoutError):
            return False
        finally:
            await connection.close()  # a refused login leaves its socket open

    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while not await known():
        if loop.time() > deadline:
            raise Misconfigured(
                f"the broker does not know the login within {wait_s:g} s",
                mend="see the log of `sluice up`; a broker of your own needs the new accounts",
            )
        await asyncio.sleep(0.2)

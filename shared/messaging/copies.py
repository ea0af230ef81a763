"""A tenant's copies: its part of RUN, PROGRESS and ALERTS, as streams in its own account.

The broker fills them from the streams of the platform, in their order, only with what was stored
there; what arrives is also published in the account, so that a plain subscription hears it live.
"""

from __future__ import annotations

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ExternalStream, RePublish, StreamConfig, StreamSource
from nats.js.errors import NotFoundError

from contracts.grants import copied_to
from contracts.topology import stream
from shared.messaging.accounts import Logins, api_of_copies, delivery_of_copies, keeper_user
from shared.messaging.provision import stream_config

COPY_BYTES = 4 << 20
"""Of a stream with a limit: a copy holds one tenant's part, and memory is reserved for each."""


def copy_config(tenant: str, route: str, name: str, subjects: str, replicas: int) -> StreamConfig:
    """The configuration of one copy: everything of the original but the subjects."""
    origin = stream_config(stream(name), replicas)
    return origin.evolve(
        subjects=None,
        max_bytes=min(origin.max_bytes or -1, COPY_BYTES) if (origin.max_bytes or -1) > 0 else -1,
        sources=[
            StreamSource(
                name=name,
                filter_subject=subjects,
                external=ExternalStream(
                    api=api_of_copies(route), deliver=delivery_of_copies(tenant)
                ),
            )
        ],
        republish=RePublish(src=">", dest=">"),
    )


async def provision_tenant(url: str, logins: Logins, tenant: str, *, replicas: int = 1) -> None:
    """Create or update the streams of a tenant's account. `url` names the broker without a login.

    Raises:
        nats.errors.Error: the broker does not know the tenant yet, or does not answer.
    """
    login = logins.login(keeper_user(tenant))
    connection = Client()
    try:
        await connection.connect(
            url,
            user=login.user,
            password=login.password,
            name=f"sluice-{login.user}",
            allow_reconnect=False,
            connect_timeout=5,
            error_cb=_quiet,
        )
        await _provision(connection.jetstream(timeout=5), logins, tenant, replicas)
    finally:
        await connection.close()  # a refused login leaves its socket open


async def _quiet(_error: Exception) -> None:
    """What goes wrong is raised where it is awaited."""


async def _provision(
    jetstream: JetStreamContext, logins: Logins, tenant: str, replicas: int
) -> None:
    for name, subjects in copied_to(tenant).items():
        config = copy_config(tenant, logins.route(tenant), name, subjects, replicas)
        try:
            await jetstream.update_stream(config)
        except NotFoundError:
            await jetstream.add_stream(config)

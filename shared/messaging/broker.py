"""The broker connection of a service, with the settings that keep messages safe.

Defaults that lose data or spin are replaced: reconnection never gives up, a permission violation is
fatal, subscribers never declare streams or consumers (the provisioner does), and a consumer that is
missing or differs from the topology stops the service at start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, cast
from urllib.parse import urlsplit

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.security import SASLPlaintext
from nats.js import JetStreamContext
from nats.js.errors import ServiceUnavailableError

from contracts.base import Service
from contracts.topology import Consumer
from shared.errors import Misconfigured
from shared.messaging.delivery import retry_or_bury
from shared.messaging.login import domain, login_of, without_login
from shared.messaging.provision import check
from shared.messaging.suspects import Suspects
from shared.settings import Settings

log = logging.getLogger("sluice.broker")

FETCH_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.25
SAY_AGAIN_S = 10.0
"""The same trouble with the broker is logged so often at most."""

EX_UNAVAILABLE = 69
"""Exit code: the broker is gone for good; a supervisor may start the service again."""
EX_CONFIG = 78
"""Exit code: credentials or settings do not fit; starting again gives the same."""


class Bus:
    """A service's broker: what it consumes from and publishes to."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.broker = NatsBroker(
            without_login(settings.nats_url),
            name=f"sluice-{service}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=cast(int, RECONNECT_WAIT_S),  # any number will do
            connect_timeout=5,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            closed_cb=self._on_closed,
            graceful_timeout=15.0,
            middlewares=(retry_or_bury(service, lambda: self.jetstream),),
            logger=logging.getLogger("faststream"),
            js_options=domain(settings),
            security=_security(settings),
        )
        self.suspects = Suspects(settings.home / "suspects")
        self._consumers: list[Consumer] = []
        self.stopping = asyncio.Event()
        """Set when the service begins to stop: a long step gives its message back."""
        self._said: dict[str, float] = {}

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context. Raises Misconfigured before the broker has connected."""
        connection = self.connection
        context: JetStreamContext = connection.jetstream(timeout=5, **domain(self.settings))
        return context

    @property
    def connection(self) -> Any:
        """The nats-py client underneath."""
        connection = self.broker._connection
        if connection is None:
            raise Misconfigured("the broker is not connected yet")
        return connection

    def expects(self, consumer: Consumer) -> None:
        """Check at start that this consumer exists as declared."""
        self._consumers.append(consumer)

    def subscriber(self, consumer: Consumer, *, workers: int = 1) -> Any:
        """A FastStream subscriber bound to a durable consumer of the topology."""
        self.expects(consumer)
        extra: dict[str, Any] = {"max_workers": workers} if workers > 1 else {}
        return self.broker.subscriber(
            consumer.filters[0],
            stream=JStream(consumer.stream, declare=False),
            durable=consumer.durable,
            pull_sub=PullSub(batch_size=1, timeout=FETCH_TIMEOUT_S),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            title=consumer.durable,
            **extra,
        )

    async def connect(self) -> None:
        """Connect and check that everything this service consumes exists as declared.

        Raises:
            Misconfigured: a stream or consumer is missing or differs; run the provisioner.
        """
        await self.broker.connect()
        try:
            await check(self.jetstream, self._consumers)
        except BaseException:
            await self.stop()
            raise

    async def start(self) -> None:
        """Begin to consume. A broker without JetStream is asked again at leisure, not in a loop."""
        await self.broker.start()
        for subscriber in self.broker.subscribers:
            _ask_at_leisure(getattr(subscriber, "subscription", None))

    async def stop_consuming(self) -> None:
        """Take no more messages and let handlers finish within the grace period."""
        self.stopping.set()
        for subscriber in self.broker.subscribers:
            await subscriber.stop()

    async def stop(self) -> None:
        """Stop consuming and close the connection."""
        await self.stop_consuming()
        await self.broker.stop()

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            log.critical("%s: %s; the service's credentials do not fit", self.service, error)
            os._exit(EX_CONFIG)
        now, said = time.monotonic(), repr(error)
        if now - self._said.get(said, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said = {said: now}
            log.warning("%s: broker: %s", self.service, error)

    async def _on_disconnect(self) -> None:
        if not self.stopping.is_set():
            log.warning("%s: lost the broker; reconnecting", self.service)

    async def _on_closed(self) -> None:
        if not self.stopping.is_set():  # FastStream would poll the dead connection in a hot loop
            log.critical("%s: the broker closed the connection for good", self.service)
            os._exit(EX_UNAVAILABLE)


def _security(settings: Settings) -> SASLPlaintext | None:
    login = login_of(settings)
    return None if login is None else SASLPlaintext(login.user, login.password)


def _ask_at_leisure(subscription: Any) -> None:
    """FastStream asks again at once where the server has no JetStream, such as on a full disk."""
    fetch = getattr(subscription, "fetch", None)
    if fetch is None:
        return

    async def patient(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fetch(*args, **kwargs)
        except ServiceUnavailableError:
            await asyncio.sleep(RECONNECT_WAIT_S)
            raise

    subscription.fetch = patient


async def wait_for_broker(url: str, *, timeout_s: float = 10.0) -> None:
    """Until a NATS server answers at `url`. Raises TimeoutError."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or 4222
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return

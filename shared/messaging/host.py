"""Running a service: connect, check, answer health, consume, stop cleanly.

`python -m services.<name>` calls `host` with the service's `create_app`. SIGTERM stops taking new
messages, lets handlers finish within the grace period, and leaves the rest to redelivery.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from contracts import subjects
from contracts.base import Service
from shared import metrics, telemetry
from shared.errors import SluiceError
from shared.messaging.broker import EX_CONFIG, EX_UNAVAILABLE, Bus
from shared.settings import Settings

LEAVE_WITHIN_S = 28.0
"""From SIGTERM to the end of the process, s: less than the 30 that compose and Kubernetes give."""

Background = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(slots=True)
class App:
    """A wired service: its bus, and what runs beside the consumers (an HTTP server, say)."""

    bus: Bus
    beside: tuple[Background, ...] = ()
    status: Callable[[], dict[str, Any]] = field(default=dict)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected, checked, consuming, and answering health, until the block ends."""
        started = time.time()
        await self.bus.connect()

        async def health(message: Any) -> None:
            answer = {
                "service": self.bus.service,
                "pid": os.getpid(),
                "up_s": round(time.time() - started, 1),
                **self.status(),
            }
            await message.respond(json.dumps(answer).encode())

        try:
            async with _all(self.beside):
                await self.bus.start()
                probe = await self.bus.connection.subscribe(
                    subjects.health(self.bus.service), cb=health
                )
                try:
                    yield
                finally:
                    self.bus.stopping.set()
                    with suppress(Exception):
                        await probe.unsubscribe()
                    await self.bus.stop_consuming()
        finally:  # last: what runs beside the consumers may still publish while it ends
            await self.bus.stop()


@asynccontextmanager
async def _all(contexts: tuple[Background, ...]) -> AsyncIterator[None]:
    if not contexts:
        yield
        return
    async with contexts[0](), _all(contexts[1:]):
        yield


async def serve(app: App) -> None:
    """Run until SIGTERM or SIGINT.

    A service that is still starting, as when its broker is away, is interrupted. What has not ended
    `LEAVE_WITHIN_S` later is left as a kill -9 would leave it, for redelivery.
    """
    stop, up = asyncio.Event(), asyncio.Event()
    loop, starting = asyncio.get_running_loop(), asyncio.current_task()
    assert starting is not None

    def leave() -> None:
        if not stop.is_set():
            loop.call_later(LEAVE_WITHIN_S, os._exit, EX_UNAVAILABLE)
        stop.set()
        if not up.is_set():
            starting.cancel()

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, leave)
    try:
        async with app.running():
            up.set()
            logging.getLogger("sluice").info("%s is up", app.bus.service)
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def host(
    service: Service, create_app: Callable[[Settings], App], settings: Settings | None = None
) -> None:
    """The whole of a service's `__main__`. Exits 78 if misconfigured, 69 if a peer is away."""
    settings = settings or Settings()
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx", "httpx2", "faststream", "nats", "alembic", "presidio-analyzer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    telemetry.configure(service, home=settings.home, otlp_endpoint=settings.otlp_endpoint)
    try:
        metrics.configure(
            service, otlp_endpoint=settings.otlp_endpoint, first_port=settings.metrics_port
        )
        asyncio.run(serve(create_app(settings)))
    except SluiceError as error:
        print(f"{service}: {error}\n  mend: {error.mend}", file=sys.stderr)
        sys.exit(EX_UNAVAILABLE if error.retryable else EX_CONFIG)

"""The console's wiring: the bus, the feed that folds its streams, and the web server beside it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from contracts.base import Service
from services.console.adapters.commands import BusCommands
from services.console.adapters.feed import Feed
from services.console.projection import Projection
from services.console.routes import build
from services.console.settings import ConsoleSettings
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.settings import Settings
from shared.web import serving


def create_app(settings: Settings, console: ConsoleSettings | None = None) -> App:
    """The console service. Raises Misconfigured if it would be open to other machines."""
    console = console or ConsoleSettings()
    console.require_safe()
    bus = Bus(Service.CONSOLE, settings)
    projection = Projection(runs_kept=console.runs_kept, alerts_kept=console.alerts_kept)
    feed = Feed(projection, lambda: bus.jetstream)
    api = build(projection, console, load=feed.load, command=BusCommands(lambda: bus.jetstream))

    def web() -> AbstractAsyncContextManager[None]:
        return serving(api, host=console.host, port=console.port, setting="SLUICE_CONSOLE_PORT")

    def status() -> dict[str, Any]:
        return {"runs": len(projection.runs()), "url": f"http://{console.host}:{console.port}"}

    return App(
        bus,
        beside=(feed.running, web),
        status=status,
    )

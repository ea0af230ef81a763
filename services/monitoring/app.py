"""The wiring of monitoring."""

from __future__ import annotations

from contracts.base import Service
from services.monitoring.handlers import Monitoring, register
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """Monitoring: restore, then follow every outcome."""
    bus = Bus(Service.MONITORING, settings)
    monitoring = Monitoring(bus)
    register(monitoring, bus)
    return App(
        bus,
        beside=(monitoring.restored,),
        status=lambda: {"firing": len(monitoring.monitor.firing)},
    )

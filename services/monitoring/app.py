"""The wiring of monitoring."""

from __future__ import annotations

from contracts.base import Service
from contracts.topology import consumer
from services.monitoring.handlers import Monitoring
from shared.messaging.batches import Batches
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """Monitoring: restore, then follow every outcome."""
    bus = Bus(Service.MONITORING, settings)
    monitoring = Monitoring(bus)
    outcomes = Batches(bus, consumer(bus.service, "outcomes"), monitoring.receive)
    return App(
        bus,
        beside=(monitoring.restored, outcomes.consuming),
        status=lambda: {"firing": len(monitoring.monitor.firing)},
    )

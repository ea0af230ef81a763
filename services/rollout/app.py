"""The wiring of rollout."""

from __future__ import annotations

from contracts.base import Service
from services.rollout.handlers import register
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """Rollout: its steps, commands and the alarm on the bus, nothing beside them."""
    bus = Bus(Service.ROLLOUT, settings)
    register(Steps(bus))
    return App(bus)

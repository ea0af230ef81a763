"""The synthesis service, wired."""

from __future__ import annotations

from contracts.base import Service
from services.synthesis import handlers
from services.synthesis.studio import Studio
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """The only wiring."""
    bus = Bus(Service.SYNTHESIS, settings)
    steps = Steps(bus)
    handlers.register(steps, Studio(settings, steps.artifacts))
    return App(bus)

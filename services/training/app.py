"""The training service, wired."""

from __future__ import annotations

from contracts.base import Service
from services.training import handlers
from services.training.settings import TrainingSettings
from services.training.workshop import Workshop
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """The only wiring."""
    own = TrainingSettings(**settings.model_dump())
    bus = Bus(Service.TRAINING, own)
    steps = Steps(bus)
    handlers.register(steps, Workshop(own, steps.artifacts))
    return App(bus)

"""The evaluation service, wired."""

from __future__ import annotations

from contracts.base import Service
from services.evaluation import handlers
from services.evaluation.bench import Bench
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """The only wiring."""
    bus = Bus(Service.EVALUATION, settings)
    steps = Steps(bus)
    handlers.register(steps, Bench(settings, steps.artifacts))
    return App(bus)

"""The curation service, wired."""

from __future__ import annotations

from contracts.base import Service
from services.curation import handlers
from services.curation.adapters.pii import PiiDetector
from services.curation.desk import Desk
from services.curation.settings import CurationSettings
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings


def create_app(settings: Settings) -> App:
    """The only wiring."""
    bus = Bus(Service.CURATION, settings)
    steps = Steps(bus)
    work, workers = settings.home / "curation", CurationSettings().workers
    handlers.register(steps, Desk(steps.artifacts, PiiDetector(), work, workers))
    return App(bus)

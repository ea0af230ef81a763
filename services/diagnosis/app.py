"""The diagnosis service, wired."""

from __future__ import annotations

from contracts.base import Service
from services.diagnosis import handlers
from services.diagnosis.clinic import Clinic
from services.diagnosis.intake import Intake
from services.diagnosis.settings import DiagnosisSettings
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.steps import Steps
from shared.settings import Settings
from shared.signing import SigningKey


def create_app(settings: Settings) -> App:
    """The only wiring."""
    own = DiagnosisSettings(**settings.model_dump())
    bus = Bus(Service.DIAGNOSIS, own)
    steps = Steps(bus)
    intake = Intake(own.home, steps.artifacts, read_files=own.read_files)
    key = SigningKey.load_or_create(own.home / "keys" / "diagnosis")
    handlers.register(steps, intake, Clinic(own, steps.artifacts, key))
    return App(bus)

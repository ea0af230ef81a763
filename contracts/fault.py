"""Faults: a service could not finish a step, for a reason no other fact names."""

from __future__ import annotations

from typing import ClassVar

from contracts.base import Event, Service


class StepFailed(Event):
    """A step gave up: a permanent error, or the last of its tries. The trigger is in DEAD."""

    service: ClassVar[Service] = Service.DIAGNOSIS
    fact: ClassVar[str] = "failed"
    where: Service
    step: str
    """The durable consumer, `training-train`."""
    error: str
    """The exception type."""
    message: str
    mend: str

    @classmethod
    def type_name(cls) -> str:
        return "sluice.v1.any.failed"

    def producer(self) -> Service:
        return self.where

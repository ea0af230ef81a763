"""Reading the streams of alerts and remedies, past and to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import nats.errors
from pydantic import ValidationError

from contracts import subjects
from contracts.alerts import Alert
from contracts.remedies import Remedy
from services.cli.reading import messages
from services.cli.session import Session
from shared.messaging.tail import Stored

LOOK_EVERY_S = 2.0


Said = TypeVar("Said", Alert, Remedy)


@dataclass(frozen=True, slots=True)
class Published(Generic[Said]):
    """An alert or a remedy, and when it was published."""

    at: datetime
    said: Said

    def text(self) -> str:
        clock = self.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        said: Alert | Remedy = self.said
        return f"{clock} {_alert(said) if isinstance(said, Alert) else _remedy(said)}"


def _alert(alert: Alert) -> str:
    what = f"{alert.metric} of {alert.kind}" if alert.kind else alert.metric
    head = (
        f"{alert.severity.upper()} {alert.state}: {alert.tenant}/{alert.deployment} "
        f"{what} {alert.value:.4g} (threshold {alert.threshold:.4g}, {alert.window}, "
        f"n={alert.n}, {alert.model})"
    )
    evidence = f"\n  evidence: {', '.join(alert.evidence[:5])}" if alert.evidence else ""
    return f"{head}{evidence}\n  remediation: {alert.remediation}"


def _remedy(remedy: Remedy) -> str:
    whose = "done by the platform" if remedy.by == "platform" else "for whoever does it"
    return (
        f"{remedy.state}: {remedy.remedy} of {remedy.tenant}/{remedy.deployment} "
        f"({remedy.model}, {remedy.metric}; {whose})\n  {remedy.advice}"
    )


async def follow_alerts(
    opened: Session, tenant: str, deployment: str, *, follow: bool
) -> AsyncIterator[Published[Alert]]:
    """Alerts in order; with `follow`, without end. `*` matches every tenant or deployment."""
    subject = subjects.alert(tenant, deployment, "*")
    async for message in _follow(opened, "ALERTS", subject, follow=follow):
        with suppress(ValidationError):
            yield Published(message.at, Alert.model_validate_json(message.data))


async def follow_remedies(
    opened: Session, tenant: str, deployment: str, *, follow: bool
) -> AsyncIterator[Published[Remedy]]:
    """Remedies, as `follow_alerts`."""
    subject = subjects.remedy(tenant, deployment, "*")
    async for message in _follow(opened, "REMEDIES", subject, follow=follow):
        with suppress(ValidationError):
            yield Published(message.at, Remedy.model_validate_json(message.data))


async def _follow(
    opened: Session, stream: str, subject: str, *, follow: bool
) -> AsyncIterator[Stored]:
    look = asyncio.Event()

    async def wake(_message: object) -> None:
        look.set()

    subscription = await opened.connection.subscribe(subject, cb=wake)
    seen = 0
    try:
        while True:
            try:
                async for message in messages(opened.js, stream, subject, start=seen + 1):
                    seen = message.seq
                    yield message
            except (nats.errors.Error, TimeoutError):
                if not follow:
                    raise
            if not follow:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await look.wait()
            look.clear()
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()

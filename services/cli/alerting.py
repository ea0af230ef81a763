"""Reading the alert stream, past and to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import nats.errors
from pydantic import ValidationError

from contracts import subjects
from contracts.alerts import Alert
from services.cli.reading import messages
from services.cli.session import Session

LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Published:
    """An alert and when it was published."""

    at: datetime
    alert: Alert

    def text(self) -> str:
        alert = self.alert
        clock = self.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        head = (
            f"{clock} {alert.severity.upper()} {alert.state}: {alert.tenant}/{alert.deployment} "
            f"{alert.metric} {alert.value:.4g} (threshold {alert.threshold:.4g}, {alert.window}, "
            f"n={alert.n}, {alert.model})"
        )
        evidence = f"\n  evidence: {', '.join(alert.evidence[:5])}" if alert.evidence else ""
        return f"{head}{evidence}\n  remediation: {alert.remediation}"


async def follow_alerts(
    opened: Session, tenant: str, deployment: str, *, follow: bool
) -> AsyncIterator[Published]:
    """Alerts in order; with `follow`, without end. `*` matches every tenant or deployment."""
    subject = subjects.alert(tenant, deployment, "*")
    look = asyncio.Event()

    async def wake(_message: object) -> None:
        look.set()

    subscription = await opened.connection.subscribe(subject, cb=wake)
    seen = 0
    try:
        while True:
            try:
                async for message in messages(opened.js, "ALERTS", subject, start=seen + 1):
                    seen = message.seq
                    with suppress(ValidationError):
                        yield Published(message.at, Alert.model_validate_json(message.data))
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

"""Alerts: an incident fires once and resolves once (M16).

An incident's id is derived from the outcome that opened it, so the same telemetry gives the same
incidents, and a restarted service that sees an outcome again repeats an alert the stream already
holds rather than adding one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts.alerts import Alert
from contracts.commands import Withdraw
from contracts.remedies import Remedy
from contracts.subjects import RunRef
from contracts.telemetry import Feedback, Outcome
from services.monitoring.rules import Rule
from services.monitoring.windows import ABSENT_AFTER, Reading, Watched, Windows

Incident = tuple[Watched, str]
"""Whose, and which rule's."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A command to the registry: whose adapter, and why."""

    ref: RunRef
    command: Withdraw


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An alert and which one of its incident it is."""

    alert: Alert
    count: int
    """1 for the first alert of the incident."""
    remedy: Remedy
    """What it wants done, or no longer."""
    withdraw: Withdrawal | None = None
    """What has to be asked for with it."""

    @property
    def message_id(self) -> str:
        """The same for every attempt to publish this alert."""
        return f"{self.alert.id}:{self.alert.state}:{self.count}"


class Monitor:
    """The fold from outcomes and feedback to alerts: windows, and the incidents that are open."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._remedies = {rule.metric: rule.remedy for rule in rules}
        self._windows = Windows(rules)
        self._open: dict[Incident, Alert] = {}

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(self._open.values())

    def restore(self, past: Iterable[Outcome | Feedback], alerts: Iterable[Alert]) -> None:
        """Take up where an earlier process stopped: what it counted, its alerts; oldest first."""
        for signal in past:
            self._windows.add(signal)
        for alert in alerts:
            incident = incident_of(alert)
            if alert.state == "firing":
                self._open[incident] = alert
            elif incident in self._open and self._open[incident].id == alert.id:
                del self._open[incident]

    def observe(self, signal: Outcome | Feedback) -> list[Notice]:
        """The alerts this outcome, or this piece of feedback, leads to."""
        watched = Watched(signal.tenant, signal.deployment, signal.model)
        moved = self._windows.add(signal)
        found = [
            self._check(reading, watched, signal) for reading in moved if self._speaks(reading)
        ]
        if moved and self._open:
            found += [self._withdraw(alert, signal.at) for alert in self._absent_from(watched)]
        return [notice for notice in found if notice is not None]

    def _absent_from(self, place: Watched) -> list[Alert]:
        """Open incidents of models that no longer answer this deployment."""
        return [
            alert
            for (other, _), alert in self._open.items()
            if (other.tenant, other.deployment) == (place.tenant, place.deployment)
            and self._windows.absent(other)
        ]

    def _speaks(self, reading: Reading) -> bool:
        """Whether an incident may begin or end: for nearly every outcome nothing does."""
        rule, value, n, _ = reading
        if value is None:
            return False
        return bool(self._open) or (n >= rule.minimum and rule.broken(value))

    def _check(
        self, reading: Reading, watched: Watched, signal: Outcome | Feedback
    ) -> Notice | None:
        rule, value, n, window = reading
        if value is None:
            return None
        open_alert = self._open.get((watched, rule.key)) if self._open else None
        if open_alert is None:
            if n < rule.minimum or not rule.broken(value):
                return None
            alert = _firing(rule, watched, value, n, window.troubles(), signal)
            self._open[watched, rule.key] = alert
            withdrawal = _withdrawal(alert, signal)
            return Notice(alert=alert, count=1, remedy=self._remedy(alert), withdraw=withdrawal)
        if n < (rule.requests or rule.minimum) or not rule.met(value):
            return None
        del self._open[watched, rule.key]
        ended = {"state": "resolved", "value": value, "n": n, "evidence": (), "at": signal.at}
        return self._resolved(open_alert.model_copy(update=ended))

    def _withdraw(self, alert: Alert, at: float) -> Notice:
        """The model no longer answers here, so the incident is over."""
        del self._open[incident_of(alert)]
        return self._resolved(
            alert.model_copy(
                update={
                    "state": "resolved",
                    "window": f"withdrawn: answered none of the last {ABSENT_AFTER} requests",
                    "n": 0,
                    "evidence": (),
                    "at": at,
                }
            )
        )

    def _resolved(self, alert: Alert) -> Notice:
        return Notice(alert=alert, count=2, remedy=self._remedy(alert))

    def _remedy(self, alert: Alert) -> Remedy:
        return Remedy(
            alert=alert.id,
            tenant=alert.tenant,
            deployment=alert.deployment,
            model=alert.model,
            metric=alert.metric,
            remedy=self._remedies[alert.metric],
            state="due" if alert.state == "firing" else "over",
            by="platform" if alert.taken != "none" else "subscriber",
            advice=alert.remediation,
            evidence=alert.evidence,
            at=alert.at,
        )


def incident_of(alert: Alert) -> Incident:
    """The incident an alert speaks of."""
    key = f"{alert.metric}.{alert.kind}" if alert.kind else alert.metric
    return Watched(alert.tenant, alert.deployment, alert.model), key


def incident_id(rule: Rule, watched: Watched, opened_by: str) -> str:
    """The same for the same incident, whoever computes it."""
    text = "\n".join((watched.tenant, watched.deployment, watched.model, rule.key, opened_by))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _firing(
    rule: Rule,
    watched: Watched,
    value: float,
    n: int,
    troubles: tuple[str, ...],
    signal: Outcome | Feedback,
) -> Alert:
    made_by_a_run = isinstance(signal, Feedback) and signal.run is not None
    return Alert(
        id=incident_id(rule, watched, signal.request_id),
        tenant=watched.tenant,
        deployment=watched.deployment,
        metric=rule.metric,
        kind=rule.kind,
        severity=rule.severity,
        state="firing",
        value=value,
        threshold=rule.alert,
        window=rule.window_in_words,
        n=n,
        model=watched.model,
        evidence=troubles,
        remediation=" ".join(rule.remediation.split()),
        taken=rule.action if made_by_a_run else "none",
        at=signal.at,
    )


def _withdrawal(alert: Alert, signal: Outcome | Feedback) -> Withdrawal | None:
    """The command an alert carries out; the frozen base cannot be withdrawn."""
    if alert.taken != "withdraw" or not isinstance(signal, Feedback) or signal.run is None:
        return None
    reason = f"{alert.metric} {alert.value:.3g} ({alert.window}): request {signal.request_id}"
    return Withdrawal(
        RunRef(alert.tenant, signal.run), Withdraw(kind="safety_override", reason=reason)
    )

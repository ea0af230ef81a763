"""Alerts: an incident fires once and resolves once (M16).

An incident's id is derived from the outcome that opened it, so the same telemetry gives the same
incidents, and a restarted service that sees an outcome again repeats an alert the stream already
holds rather than adding one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contracts.alerts import Alert, MetricName
from contracts.telemetry import Outcome
from services.monitoring.rules import Rule
from services.monitoring.windows import ABSENT_AFTER, Reading, Watched, Windows

Incident = tuple[Watched, MetricName]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An alert and which one of its incident it is."""

    alert: Alert
    count: int
    """1 for the first alert of the incident."""

    @property
    def message_id(self) -> str:
        """The same for every attempt to publish this alert."""
        return f"{self.alert.id}:{self.alert.state}:{self.count}"


class Monitor:
    """The fold from outcomes to alerts. Holds windows and the incidents that are open."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._windows = Windows(rules)
        self._open: dict[Incident, Alert] = {}

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(self._open.values())

    def restore(self, past: Iterable[Outcome], alerts: Iterable[Alert]) -> None:
        """Take up where an earlier process stopped: its outcomes and its alerts, oldest first."""
        for outcome in past:
            self._windows.add(outcome)
        for alert in alerts:
            incident = Watched(alert.tenant, alert.deployment, alert.model), alert.metric
            if alert.state == "firing":
                self._open[incident] = alert
            elif incident in self._open and self._open[incident].id == alert.id:
                del self._open[incident]

    def observe(self, outcome: Outcome) -> list[Notice]:
        """The alerts this outcome leads to."""
        if not self._windows.add(outcome):
            return []
        watched = Watched(outcome.tenant, outcome.deployment, outcome.model)
        found = [self._check(rule, watched, outcome) for rule in self._rules]
        absent = [
            alert
            for (other, _), alert in self._open.items()
            if (other.tenant, other.deployment) == (outcome.tenant, outcome.deployment)
            and self._windows.absent(other)
        ]
        found += [self._withdraw(alert, outcome.at) for alert in absent]
        return [notice for notice in found if notice is not None]

    def _check(self, rule: Rule, watched: Watched, outcome: Outcome) -> Notice | None:
        reading = self._windows.reading(watched, rule)
        incident: Incident = (watched, rule.metric)
        open_alert = self._open.get(incident)
        if open_alert is None:
            if reading.n < rule.minimum or reading.value >= rule.alert:
                return None
            alert = _firing(rule, watched, reading, outcome)
            self._open[incident] = alert
            return Notice(alert=alert, count=1)
        if reading.n < rule.window or reading.value < rule.target:
            return None
        del self._open[incident]
        return Notice(
            alert=open_alert.model_copy(
                update={
                    "state": "resolved",
                    "value": reading.value,
                    "n": reading.n,
                    "evidence": (),
                    "at": outcome.at,
                }
            ),
            count=2,
        )

    def _withdraw(self, alert: Alert, at: float) -> Notice:
        """The model no longer answers here, so the incident is over."""
        del self._open[Watched(alert.tenant, alert.deployment, alert.model), alert.metric]
        return Notice(
            alert=alert.model_copy(
                update={
                    "state": "resolved",
                    "window": f"withdrawn: answered none of the last {ABSENT_AFTER} requests",
                    "n": 0,
                    "evidence": (),
                    "at": at,
                }
            ),
            count=2,
        )


def incident_id(rule: Rule, watched: Watched, opened_by: str) -> str:
    """The same for the same incident, whoever computes it."""
    text = "\n".join((watched.tenant, watched.deployment, watched.model, rule.metric, opened_by))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _firing(rule: Rule, watched: Watched, reading: Reading, outcome: Outcome) -> Alert:
    return Alert(
        id=incident_id(rule, watched, outcome.request_id),
        tenant=watched.tenant,
        deployment=watched.deployment,
        metric=rule.metric,
        severity=rule.severity,
        state="firing",
        value=reading.value,
        threshold=rule.alert,
        window=rule.window_in_words,
        n=reading.n,
        model=watched.model,
        evidence=reading.failures,
        remediation=" ".join(rule.remediation.split()),
        at=outcome.at,
    )

"""What the console knows: every run folded from its log, the newest progress, the newest alerts.

A projection only: it may be thrown away and built again from the streams. It is bounded. When it
must forget, it forgets ended runs first, then those that have been quiet the longest.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from contracts.alerts import Alert
from contracts.envelope import Recorded
from contracts.progress import Progress
from contracts.run import Run
from contracts.subjects import RunRef


@dataclass(frozen=True, slots=True)
class News:
    """The newest progress of one stage."""

    progress: Progress
    at: datetime


class Projection:
    """Runs, progress and alerts as of now, and a bell for whoever shows them."""

    def __init__(self, *, runs_kept: int = 500, alerts_kept: int = 500) -> None:
        self._runs: OrderedDict[RunRef, Run] = OrderedDict()
        self._news: dict[RunRef, dict[str, News]] = {}
        self._alerts: OrderedDict[str, Alert] = OrderedDict()
        self._runs_kept = runs_kept
        self._alerts_kept = alerts_kept
        self._bells: set[asyncio.Event] = set()

    def runs(self) -> list[Run]:
        """Every remembered run, the one with the newest fact first."""
        return sorted(self._runs.values(), key=lambda run: run.version, reverse=True)

    def run(self, ref: RunRef) -> Run | None:
        return self._runs.get(ref)

    def news(self, ref: RunRef) -> list[News]:
        """The newest progress of each stage of a run, in the order the stages spoke."""
        return list(self._news.get(ref, {}).values())

    def alerts(self) -> list[Alert]:
        """The newest state of each incident: firing first, then by time."""
        return sorted(self._alerts.values(), key=lambda a: (a.state != "firing", -a.at))

    def apply(self, record: Recorded) -> None:
        """One more fact. A fact that is already folded changes nothing."""
        run = self._runs.get(record.ref) or Run(ref=record.ref)
        if record.seq > run.version:
            self.put(run.apply(record))

    def put(self, run: Run) -> None:
        """A whole run, as read from its log."""
        if run.closed or (run.log and run.log[-1].event.fact == "accepted"):
            self._news.pop(run.ref, None)
        self._runs[run.ref] = run
        self._runs.move_to_end(run.ref)
        if len(self._runs) > self._runs_kept:
            ended = (ref for ref, kept in self._runs.items() if kept.closed and ref != run.ref)
            forgotten = next(ended, None) or next(iter(self._runs))
            del self._runs[forgotten]
            self._news.pop(forgotten, None)
        self._ring()

    def report(self, ref: RunRef, progress: Progress, at: datetime) -> None:
        """News of a stage. Of a run that has ended or is not remembered, it is dropped."""
        run = self._runs.get(ref)
        if run is None or run.closed or not run.log or at < run.log[0].at:
            return
        self._news.setdefault(ref, {})[progress.stage] = News(progress, at)
        self._ring()

    def alert(self, alert: Alert) -> None:
        self._alerts[alert.id] = alert
        self._alerts.move_to_end(alert.id)
        while len(self._alerts) > self._alerts_kept:
            self._alerts.popitem(last=False)
        self._ring()

    @contextmanager
    def bell(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change, until the block ends."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

"""Where a run's time went.

Each fact's wait since the one before (the first: since the job was submitted), summed by the
service that stated it. Gates may run side by side, so a service's time is what it added to the run.
"""

from __future__ import annotations

from datetime import datetime

from contracts.run import Run
from services.cli.numbers import duration


def stage_seconds(run: Run, submitted: datetime | None = None) -> dict[str, float]:
    """Service → seconds it added to the run, in the order they first appear."""
    seconds: dict[str, float] = {}
    before = submitted
    for record in run.log:
        service = str(record.event.producer())
        added = 0.0 if before is None else (record.at - before).total_seconds()
        seconds[service] = seconds.get(service, 0.0) + max(0.0, added)
        before = record.at
    return seconds


def times_text(run: Run, submitted: datetime | None = None) -> str:
    """`times: diagnosis 3.1 s, training 2 min 04 s; 2 min 07 s in all`."""
    seconds = stage_seconds(run, submitted)
    parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    return f"times: {parts}; {duration(sum(seconds.values()))} in all"

"""Where a run's time went.

Each fact's wait since the one before (the first: since the job was submitted), summed by the
service that stated it. Gates may run side by side, so a service's time is what it added to the run.
"""

from __future__ import annotations

from datetime import datetime

from contracts.evaluation import GateJudged
from contracts.run import Run
from contracts.training import AdapterTrained
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


def gate_seconds(run: Run) -> dict[str, float]:
    """Gate → seconds from the newest adapter to its verdict, in the order of the verdicts.

    The last value is what the whole chain took, since gates wait for each other or run beside.
    """
    began: datetime | None = None
    seconds: dict[str, float] = {}
    for record in run.log:
        if isinstance(record.event, AdapterTrained):
            began, seconds = record.at, {}
        elif isinstance(record.event, GateJudged) and began is not None:
            seconds[record.event.gate] = (record.at - began).total_seconds()
    return seconds


def times_text(run: Run, submitted: datetime | None = None) -> str:
    """`times: diagnosis 3.1 s, training 2 min 04 s; 2 min 07 s in all`, and the gates' own."""
    seconds = stage_seconds(run, submitted)
    parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    text = f"times: {parts}; {duration(sum(seconds.values()))} in all"
    if gates := gate_seconds(run):
        last = next(reversed(gates))
        text += f"\ngates: {duration(gates[last])} from the adapter to the last verdict, {last}"
    return text

"""Subjects: where each message goes. All begin with `sluice.v1.`; see `contracts.topology`."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.base import Event

PREFIX = "sluice.v1"


def command(tenant: str, run: str, verb: str) -> str:
    """A user's command: `verb` is a command's name, as in `contracts.commands`."""
    return f"{PREFIX}.job.{tenant}.{run}.{verb}"


def fact(tenant: str, run: str, event: Event) -> str:
    """The run-log subject of `event`."""
    return f"{PREFIX}.run.{tenant}.{run}.{event.producer()}.{event.token()}"


def run_log(tenant: str, run: str) -> str:
    """All facts of one run."""
    return f"{PREFIX}.run.{tenant}.{run}.>"


def progress(tenant: str, run: str, stage: str) -> str:
    return f"{PREFIX}.progress.{tenant}.{run}.{stage}"


def telemetry(tenant: str, deployment: str) -> str:
    return f"{PREFIX}.telemetry.{tenant}.{deployment}"


def feedback(tenant: str, deployment: str) -> str:
    return f"{telemetry(tenant, deployment)}.feedback"


def alert(tenant: str, deployment: str, metric: str) -> str:
    return f"{PREFIX}.alert.{tenant}.{deployment}.{metric}"


def remedy(tenant: str, deployment: str, name: str) -> str:
    """`name` is one of `contracts.remedies.RemedyName`."""
    return f"{PREFIX}.remedy.{tenant}.{deployment}.{name}"


def dead(service: str) -> str:
    return f"{PREFIX}.dead.{service}"


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run a subject speaks of."""

    tenant: str
    run: str

    @classmethod
    def of(cls, subject: str) -> RunRef:
        """Parse a job, run or progress subject. Raises ValueError otherwise."""
        parts = subject.split(".")
        if (
            len(parts) < 6
            or ".".join(parts[:2]) != PREFIX
            or parts[2] not in {"job", "run", "progress"}
        ):
            raise ValueError(f"{subject!r} names no run")
        return cls(parts[3], parts[4])

    def __str__(self) -> str:
        return f"{self.tenant}/{self.run}"


def health(service: str) -> str:
    """Core NATS request/reply: a live service answers with its status as JSON."""
    return f"{PREFIX}.health.{service}"

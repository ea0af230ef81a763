"""The topology: streams, and which service consumes which subject. One table, nothing implied.

The provisioner creates exactly this; services check it at start; the AsyncAPI document and the
permission tables are generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from contracts.base import Service
from contracts.job import GateId
from contracts.subjects import PREFIX

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A JetStream stream. `max_age_s` 0 keeps messages for ever."""

    name: str
    subjects: tuple[str, ...]
    purpose: str
    max_age_s: float = 0.0
    max_bytes: int = -1
    storage: Literal["file", "memory"] = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A durable pull consumer: `service` handles messages that match any of `filters`.

    `ack_wait_s` is how long a silent handler keeps a message; long work renews it.
    """

    service: Service
    purpose: str
    stream: str
    filters: tuple[str, ...]
    ack_wait_s: float = 30.0
    max_deliver: int = -1
    max_ack_pending: int = 64

    @property
    def durable(self) -> str:
        return f"{self.service}-{self.purpose}"


STREAMS: tuple[Stream, ...] = (
    Stream(name="JOBS", subjects=(f"{PREFIX}.job.>",), purpose="commands from users"),
    Stream(name="RUN", subjects=(f"{PREFIX}.run.>",), purpose="the run log, the source of truth"),
    Stream(
        name="PROGRESS",
        subjects=(f"{PREFIX}.progress.>",),
        purpose="live progress",
        max_age_s=DAY_S,
        max_bytes=64 << 20,
    ),
    Stream(
        name="TELEMETRY",
        subjects=(f"{PREFIX}.telemetry.>",),
        purpose="one outcome per served request, and people's feedback on it",
        max_age_s=7 * DAY_S,
    ),
    Stream(
        name="ALERTS",
        subjects=(f"{PREFIX}.alert.>",),
        purpose="the public alert stream",
        max_age_s=90 * DAY_S,
    ),
    Stream(
        name="REMEDIES",
        subjects=(f"{PREFIX}.remedy.>",),
        purpose="what alerts want done, for whoever does it",
        max_age_s=90 * DAY_S,
    ),
    Stream(name="DEAD", subjects=(f"{PREFIX}.dead.>",), purpose="poison messages, replayable"),
)


def _facts(*facts: str) -> tuple[str, ...]:
    return tuple(f"{PREFIX}.run.*.*.{fact}" for fact in facts)


def _commands(*verbs: str) -> tuple[str, ...]:
    return tuple(f"{PREFIX}.job.*.*.{verb}" for verb in verbs)


def _on_run(
    service: Service, purpose: str, *facts: str, ack_wait_s: float = 30.0, at_once: int = 64
) -> Consumer:
    return Consumer(
        service=service,
        purpose=purpose,
        stream="RUN",
        filters=_facts(*facts),
        ack_wait_s=ack_wait_s,
        max_ack_pending=at_once,
    )


CONSUMERS: tuple[Consumer, ...] = (
    Consumer(
        service=Service.DIAGNOSIS, purpose="submit", stream="JOBS", filters=_commands("submit")
    ),
    Consumer(
        service=Service.DIAGNOSIS, purpose="cancel", stream="JOBS", filters=_commands("cancel")
    ),
    Consumer(service=Service.DIAGNOSIS, purpose="retry", stream="JOBS", filters=_commands("retry")),
    Consumer(
        service=Service.DIAGNOSIS, purpose="observe", stream="JOBS", filters=_commands("observe")
    ),
    _on_run(Service.DIAGNOSIS, "diagnose", "diagnosis.accepted"),
    _on_run(Service.DIAGNOSIS, "replan", "evaluation.g5_judged"),
    _on_run(Service.CURATION, "curate", "diagnosis.train_advised", "synthesis.synthesized"),
    _on_run(Service.SYNTHESIS, "synthesize", "curation.synthesis_requested"),
    _on_run(Service.TRAINING, "train", "curation.curated"),
    _on_run(Service.EVALUATION, "g1", "evaluation.g2_judged"),
    _on_run(Service.EVALUATION, "g2", "training.trained"),
    _on_run(Service.EVALUATION, "g3", "evaluation.g1_judged"),
    _on_run(Service.EVALUATION, "g4", "evaluation.g3_judged"),
    _on_run(Service.EVALUATION, "g5", "evaluation.g3_judged"),
    _on_run(Service.EVALUATION, "g6", "evaluation.g3_judged"),
    _on_run(Service.EVALUATION, "g7", "evaluation.g3_judged"),
    _on_run(Service.EVALUATION, "g12", "evaluation.g3_judged"),
    _on_run(
        Service.REGISTRY,
        "register",
        *(f"evaluation.{gate.lower()}_judged" for gate in get_args(GateId)),
    ),
    _on_run(
        Service.REGISTRY,
        "attest",
        "registry.registered",
        "rollout.stage_judged",
        *(f"evaluation.{gate.lower()}_judged" for gate in get_args(GateId)),
    ),
    _on_run(Service.REGISTRY, "promote", "rollout.completed"),
    _on_run(Service.REGISTRY, "roll-back", "rollout.rolled_back"),
    Consumer(
        service=Service.REGISTRY, purpose="withdraw", stream="JOBS", filters=_commands("withdraw")
    ),
    _on_run(Service.ROLLOUT, "begin", "registry.registered"),
    _on_run(Service.ROLLOUT, "watch", "rollout.stage_started", ack_wait_s=15.0),
    _on_run(Service.ROLLOUT, "guard", "rollout.held", ack_wait_s=15.0, at_once=256),
    _on_run(Service.ROLLOUT, "advance", "rollout.stage_judged", "registry.attested"),
    Consumer(
        service=Service.ROLLOUT, purpose="approve", stream="JOBS", filters=_commands("approve")
    ),
    Consumer(service=Service.ROLLOUT, purpose="hold", stream="JOBS", filters=_commands("hold")),
    Consumer(
        service=Service.ROLLOUT, purpose="rollback", stream="JOBS", filters=_commands("rollback")
    ),
    Consumer(
        service=Service.ROLLOUT,
        purpose="alarm",
        stream="ALERTS",
        filters=(f"{PREFIX}.alert.>",),
    ),
    Consumer(
        service=Service.MONITORING,
        purpose="outcomes",
        stream="TELEMETRY",
        filters=(f"{PREFIX}.telemetry.*.*", f"{PREFIX}.telemetry.*.*.feedback"),
        max_ack_pending=4096,
    ),
)

READS: dict[Service, tuple[str, ...]] = {
    Service.ROLLOUT: ("TELEMETRY",),
    Service.SERVING: ("RUN",),
    Service.MONITORING: ("TELEMETRY", "ALERTS"),
    Service.CONSOLE: ("RUN", "PROGRESS", "ALERTS"),
}
"""Streams a service reads from any position, beside what its consumers and steps bring it."""

SAYS: dict[Service, tuple[str, ...]] = {
    Service.SERVING: (f"{PREFIX}.telemetry.*.*", f"{PREFIX}.telemetry.*.*.feedback"),
    Service.MONITORING: (
        f"{PREFIX}.alert.*.*.*",
        f"{PREFIX}.remedy.*.*.*",
        *_commands("withdraw"),
    ),
    Service.CONSOLE: _commands("cancel", "retry", "approve", "hold", "rollback"),
}
"""Subjects a service publishes, beside its own facts, progress and dead letters."""

LEASES = "LEASES"
"""The key-value bucket of leases."""


def consumer(service: Service, purpose: str) -> Consumer:
    """The declared consumer. Raises KeyError if the topology has none."""
    for row in CONSUMERS:
        if row.service == service and row.purpose == purpose:
            return row
    raise KeyError(f"{service}-{purpose} is not in contracts.topology")


def stream(name: str) -> Stream:
    """The declared stream. Raises KeyError if the topology has none."""
    return {row.name: row for row in STREAMS}[name]

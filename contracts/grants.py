"""Grants: what each service and each tenant may say and ask on the bus, from the topology.

The streams live in one NATS account, `bus`. Every service and every tenant has an account of its
own that sees exactly what is granted here; nothing is granted by hand. An answer of the broker
returns into the account that asked, so a forged reply subject reaches nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.base import Service
from contracts.subjects import PREFIX, dead, health
from contracts.topology import CONSUMERS, LEASES, READS, SAYS

API = "$JS.API"
BUCKET = f"KV_{LEASES}"
RUN = "RUN"
DEAD = "DEAD"

TENANT_STREAMS: dict[str, str] = {
    "RUN": "run",
    "PROGRESS": "progress",
    "ALERTS": "alert",
    "REMEDIES": "remedy",
}
"""Stream → the third token of its subjects, for what a tenant has a copy of its own part of."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What one account may do with the account of the streams.

    `says` are subjects it publishes, `asks` subjects of the JetStream API below `$JS.API.`.
    """

    says: tuple[str, ...]
    asks: tuple[str, ...]
    answers: tuple[str, ...] = ()
    """Subjects on which others may ask it."""


def of_service(service: Service) -> Grants:
    """The grants of a service: its consumers, its leases, its facts, and what the topology adds."""
    consumers = [row for row in CONSUMERS if row.service == service]
    read = {RUN, *READS.get(service, ())}
    known = read | {DEAD, BUCKET} | {row.stream for row in consumers}
    return Grants(
        says=(
            f"{PREFIX}.run.*.*.{service}.*",
            f"{PREFIX}.progress.*.*.*",
            dead(service),
            *SAYS.get(service, ()),
            *(f"$KV.{LEASES}.*.*.{row.durable}" for row in consumers),
            *(f"$JS.ACK.{row.stream}.{row.durable}.>" for row in consumers),
        ),
        asks=(
            *(f"STREAM.INFO.{name}" for name in sorted(known)),
            *(f"DIRECT.GET.{name}" for name in sorted(read)),
            f"STREAM.MSG.GET.{BUCKET}",
            *(f"CONSUMER.INFO.{row.stream}.{row.durable}" for row in consumers),
            *(f"CONSUMER.MSG.NEXT.{row.stream}.{row.durable}" for row in consumers),
        ),
        answers=(health(service),),
    )


def of_program(name: str) -> Grants:
    """The grants of a user's own program beside the services: it may say that it is well."""
    return Grants(says=(), asks=(), answers=(health(name),))


def of_tenant(tenant: str) -> Grants:
    """The grants of a tenant: its own commands. What it may read is in its own account."""
    return Grants(says=(f"{PREFIX}.job.{tenant}.*.*",), asks=())


def copied_to(tenant: str) -> dict[str, str]:
    """Stream → the subjects of it that the tenant has a copy of."""
    return {stream: f"{PREFIX}.{kind}.{tenant}.>" for stream, kind in TENANT_STREAMS.items()}

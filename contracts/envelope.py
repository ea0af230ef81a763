"""The envelope of a fact: CloudEvents 1.0 in binary mode, as NATS message headers.

The event id is derived, not drawn: the same fact about the same run from the same cause has the
same id, so a redelivered trigger can only repeat what the log already holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.base import Event
from contracts.catalog import EVENTS
from contracts.subjects import RunRef

SPEC_VERSION = "1.0"
MSG_ID = "Nats-Msg-Id"


class UnknownEvent(ValueError):
    """A message whose `ce-type` is not in the catalog."""


def event_id(ref: RunRef, event: Event, key: str) -> str:
    """sha256 over tenant, run, type, token and key, in hex.

    `key` is the id of the message that caused the event, or, where several causes may lead to one
    fact (a join), whatever names that fact.
    """
    text = "\n".join((ref.tenant, ref.run, event.type_name(), event.producer(), event.token(), key))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A fact as it stands in a run's log."""

    id: str
    ref: RunRef
    event: Event
    cause: str
    """Id of the message that led to it."""
    at: datetime
    seq: int
    """Stream sequence; the run's version is its newest event's."""
    traceparent: str | None = None


def headers_of(
    *, id: str, ref: RunRef, event: Event, cause: str, at: datetime, traceparent: str | None
) -> dict[str, str]:
    """The NATS headers of a fact."""
    headers = {
        MSG_ID: id,
        "content-type": "application/json",
        "ce-specversion": SPEC_VERSION,
        "ce-id": id,
        "ce-type": event.type_name(),
        "ce-source": f"/sluice/{event.producer()}",
        "ce-subject": str(ref),
        "ce-time": at.astimezone(UTC).isoformat(),
        "ce-sluicecause": cause,
    }
    if traceparent:
        headers["traceparent"] = traceparent
    return headers


def recorded(subject: str, headers: Mapping[str, str], body: bytes, seq: int) -> Recorded:
    """A message of the RUN stream as a fact.

    Raises:
        UnknownEvent: `ce-type` is missing or not in the catalog.
        pydantic.ValidationError: the body does not fit its type.

    """
    kind = EVENTS.get(headers.get("ce-type", ""))
    if kind is None:
        raise UnknownEvent(f"ce-type {headers.get('ce-type')!r} on {subject} is not in the catalog")
    return Recorded(
        id=headers["ce-id"],
        ref=RunRef.of(subject),
        event=kind.model_validate_json(body),
        cause=headers.get("ce-sluicecause", ""),
        at=datetime.fromisoformat(headers["ce-time"]),
        seq=seq,
        traceparent=headers.get("traceparent"),
    )

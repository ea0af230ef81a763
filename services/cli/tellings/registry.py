"""The registry's facts in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contracts.base import Event
from contracts.registry import (
    AdapterPromoted,
    AdapterWithdrawn,
    CandidateRegistered,
    RegistrationRefused,
    VerdictAttested,
)
from services.cli.tellings.telling import Telling


def _registered(event: CandidateRegistered) -> Telling:
    return Telling(
        headline=f"candidate {event.adapter_id} registered, card signed",
        details=(f"card {event.card}",),
    )


def _attested(event: VerdictAttested) -> Telling:
    return Telling(
        headline=f"{event.name} attested: link {event.index} of the chain is signed",
        details=(f"attestation {event.attestation}",),
    )


def _refused(event: RegistrationRefused) -> Telling:
    return Telling(
        headline=f"registration refused: {event.reason}", mood="bad", mends=(event.mend,)
    )


def _promoted(event: AdapterPromoted) -> Telling:
    return Telling(
        headline=f"{event.adapter_id} promoted: it serves {event.deployment}",
        details=(f"bundle {event.bundle}",),
        mood="good",
    )


def _withdrawn(event: AdapterWithdrawn) -> Telling:
    return Telling(
        headline=f"{event.adapter_id} withdrawn ({event.kind}): {event.reason}",
        details=(f"{event.deployment} answers from {event.to}", f"revocation {event.revocation}"),
        mood="bad",
        mends=("submit a new run that answers the reason",),
    )


TELLERS: dict[type[Event], Callable[[Any], Telling]] = {
    CandidateRegistered: _registered,
    VerdictAttested: _attested,
    RegistrationRefused: _refused,
    AdapterPromoted: _promoted,
    AdapterWithdrawn: _withdrawn,
}

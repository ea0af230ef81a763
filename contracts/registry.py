"""Registry: adapter identities, signed cards, promotion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, JsonValue

from contracts.base import Digest, Event, Service
from contracts.commands import WithdrawalKind

_ID = re.compile(
    r"^(?P<base>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<task>[a-z0-9][a-z0-9_.]*)-v(?P<version>[1-9]\d*)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterId:
    """`{Base-Model-Name}-{Task-Namespace}-v{Version}`, parsed from the right (R1, ERRATA 16).

    The law: `str(AdapterId.parse(s)) == s`.
    """

    base: str
    task: str
    version: int

    @classmethod
    def parse(cls, text: str) -> AdapterId:
        """Raises ValueError if `text` is no adapter id."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not <base>-<task_namespace>-v<version>")
        return cls(base=match["base"], task=match["task"], version=int(match["version"]))

    def __str__(self) -> str:
        return f"{self.base}-{self.task}-v{self.version}"


class CandidateRegistered(Event):
    """Gates passed: the candidate has an id and a signed card.

    Serving may use it as shadow or canary only (ERRATA 9).
    """

    service: ClassVar[Service] = Service.REGISTRY
    fact: ClassVar[str] = "registered"
    adapter_id: str
    adapter: Digest
    card: Digest
    """The signed card's DSSE envelope in the artifact store."""
    deployment: str
    constrained: bool = False
    """Its answers are decoded under a constraint: `output_schema`, or the request's own tools."""
    output_schema: dict[str, JsonValue] | None = None


class VerdictAttested(Event):
    """A verdict on the candidate is signed: one more link of its chain, before it is closed (R4).

    Gates are attested as soon as there is a card to name, stages as soon as they are judged, failed
    ones too. The next stage begins after its predecessor's attestation.
    """

    service: ClassVar[Service] = Service.REGISTRY
    fact: ClassVar[str] = "attested"
    adapter_id: str
    deployment: str
    name: str
    """As `contracts.card.Attestation.name`: `G2`, `G8`, `G9-10%`."""
    index: int = Field(ge=0)
    """Its place in the chain."""
    attests: str
    """Id of the verdict in the run log."""
    attestation: Digest
    """The signed attestation's DSSE envelope in the artifact store."""
    payload: Digest
    """What the next link names."""


class RegistrationRefused(Event):
    """The candidate may not be registered: an id is taken, an artifact is unsafe."""

    service: ClassVar[Service] = Service.REGISTRY
    fact: ClassVar[str] = "refused"
    reason: str
    mend: str


class AdapterPromoted(Event):
    """G10: the chain is closed and the adapter serves its deployment."""

    service: ClassVar[Service] = Service.REGISTRY
    fact: ClassVar[str] = "promoted"
    adapter_id: str
    deployment: str
    bundle: Digest
    """A tree: card, attestations, weights, README, public key. Verifies offline."""


class AdapterWithdrawn(Event):
    """The adapter is out of service for good. It may follow the fact that ended the run."""

    service: ClassVar[Service] = Service.REGISTRY
    fact: ClassVar[str] = "withdrawn"
    adapter_id: str
    adapter: Digest
    deployment: str
    to: str
    """What answers instead where it served: an adapter id, or `base`."""
    kind: WithdrawalKind
    reason: str
    revocation: Digest
    """The signed `contracts.card.Revocation`, for verifiers that are offline."""

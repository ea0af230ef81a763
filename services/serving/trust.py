"""Which facts of the run log routing believes: those with a signed chain behind them (R4).

A candidate needs a card of the registry's. It gets a share of the traffic only when the registry
has attested a pass of every stage before that share, and full traffic only with a closed chain:
card, gates, shadow, every canary stage, promotion (ERRATA 9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from contracts.base import Digest
from contracts.card import ATTESTATION_TYPE, Attestation
from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, CandidateRegistered, VerdictAttested
from contracts.rollout import RolloutCompleted, StageStarted
from shared.artifacts import ArtifactStore
from shared.artifacts.uris import Pinned
from shared.bundles import open_card, require_promoted, required_attestations
from shared.bundles.card import SignedCard
from shared.bundles.chain import Opened, chain_faults, newest_verdicts
from shared.bundles.layout import attestation_path
from shared.errors import SignatureInvalid, SluiceError
from shared.signing import PublicKey, load_ring, open_envelope

Owned = tuple[str, str]
"""Tenant and adapter id."""
_About = VerdictAttested | StageStarted | RolloutCompleted | AdapterPromoted


@dataclass(slots=True)
class _Candidate:
    registered: CandidateRegistered
    signed: SignedCard
    required: tuple[str, ...]
    """Live verdicts in the order of the stages; those of the gates are on the card."""
    dev_set: str
    """Where its job measured, as the card pins it."""
    links: list[VerdictAttested] = field(default_factory=list)
    chain: list[Opened] = field(default_factory=list)
    """What those say."""
    bundle: Digest | None = None
    """Of its promotion, once that was believed."""


class Trust:
    """Checks facts in the order of the log. Blocks on the artifact store."""

    def __init__(self, artifacts: ArtifactStore, registry_key: Path) -> None:
        self._artifacts = artifacts
        self._registry_key = registry_key
        self._ring: tuple[PublicKey, ...] = ()
        self._candidates: dict[Owned, _Candidate] = {}

    def require(self, record: Recorded) -> None:
        """Return if routing may act on the fact.

        Raises:
            SignatureInvalid: the chain behind it is stripped, forged or about something else.
            SluiceError, OSError: key or artifacts cannot be read.

        """
        tenant = record.ref.tenant
        match record.event:
            case CandidateRegistered() as event:
                self._candidates[tenant, event.adapter_id] = self._candidate(tenant, event)
            case VerdictAttested() as event:
                candidate = self._known(tenant, event)
                candidate.chain.append(self._link(candidate, event))
                candidate.links.append(event)
            case StageStarted() as event:
                stage = "G8" if event.stage == "shadow" else f"G9-{event.percent}%"
                self._require_verdicts(self._known(tenant, event), before=stage)
            case RolloutCompleted() as event:
                self._require_verdicts(self._known(tenant, event))
            case AdapterPromoted() as event:
                candidate = self._known(tenant, event)
                self._chain(candidate, event.bundle)
                candidate.bundle = event.bundle
            case _:
                pass

    def lost(self) -> tuple[Owned, ...]:
        """Adapters that were believed and are no longer, since the ring of keys has changed.

        Raises Misconfigured while the ring cannot be read; nothing is lost by that.
        """
        if not self._candidates or (ring := self._keys()) == self._ring:
            return ()
        self._ring = ring
        believed = list(self._candidates.items())  # a check may be under way in another thread
        lost = tuple(owned for owned, known in believed if not _holds(self._again, known))
        for owned in lost:
            del self._candidates[owned]
        return lost

    def dev_set(self, tenant: str, deployment: str) -> Digest | None:
        """Where the newest candidate of a deployment was measured; None without one."""
        found = [
            known.dev_set
            for (owner, _), known in list(self._candidates.items())  # asked from another thread
            if owner == tenant and known.registered.deployment == deployment
        ]
        try:
            return Pinned.parse(found[-1]).digest if found else None
        except ValueError:
            return None

    def _again(self, candidate: _Candidate) -> None:
        self._card(candidate.registered)
        for event in candidate.links:
            open_envelope(self._artifacts.get(event.attestation), self._keys())
        if candidate.bundle is not None:
            self._chain(candidate, candidate.bundle)

    def _keys(self) -> tuple[PublicKey, ...]:
        return load_ring(self._registry_key)

    def _candidate(self, tenant: str, event: CandidateRegistered) -> _Candidate:
        self._ring = self._ring or self._keys()
        signed = self._card(event)
        card = signed.card
        if (card.tenant, card.job.rollout.deployment) != (tenant, event.deployment):
            raise SignatureInvalid("its card is for another tenant or deployment")
        live = tuple(n for n in required_attestations(card.job) if n not in card.job.gates.required)
        return _Candidate(event, signed, live, card.job.evaluation.dev.uri)

    def _card(self, event: CandidateRegistered) -> SignedCard:
        signed = open_card(self._artifacts.get(event.card), self._keys())
        about = signed.card.adapter_id, signed.card.training.adapter
        if about != (event.adapter_id, event.adapter):
            raise SignatureInvalid("its card is about another adapter")
        return signed

    def _link(self, candidate: _Candidate, event: VerdictAttested) -> Opened:
        """The next link of the candidate's chain. Raises SignatureInvalid if it is not that."""
        content = self._artifacts.get(event.attestation)
        statement = open_envelope(content, self._keys(), predicate_type=ATTESTATION_TYPE)
        try:
            made = Attestation.model_validate(statement.predicate)
        except ValidationError as error:
            raise SignatureInvalid(f"it is no attestation: {error}") from error
        link = Opened(attestation_path(event.index, event.name), made, statement.payload)
        faults = list(chain_faults([*candidate.chain, link], candidate.signed))
        if faults:
            raise SignatureInvalid("; ".join(f"{path} {reason}" for path, reason in faults))
        return link

    def _known(self, tenant: str, event: _About) -> _Candidate:
        candidate = self._candidates.get((tenant, event.adapter_id))
        if candidate is None:
            raise SignatureInvalid("it has no card that verifies")
        if candidate.registered.deployment != event.deployment:
            raise SignatureInvalid(f"its card is not for deployment {event.deployment}")
        return candidate

    def _require_verdicts(self, candidate: _Candidate, before: str | None = None) -> None:
        required = candidate.required
        if before is not None:
            if before not in required:
                raise SignatureInvalid(f"its job has no stage {before}")
            required = required[: required.index(before)]
        verdicts = newest_verdicts(candidate.chain)
        missing = [name for name in required if verdicts.get(name) != "passed"]
        if missing:
            raise SignatureInvalid(f"there is no signed, passed verdict for {', '.join(missing)}")

    def _chain(self, candidate: _Candidate, bundle: Digest) -> None:
        files = self._artifacts.tree(bundle).files
        signed = require_promoted(files, self._artifacts.get, self._keys())
        if signed.payload != candidate.signed.payload:
            raise SignatureInvalid("the promoted bundle holds another card")


def _holds(check: Callable[[_Candidate], None], candidate: _Candidate) -> bool:
    try:
        check(candidate)
    except (SluiceError, OSError):
        return False
    return True

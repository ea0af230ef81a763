"""From the run log to attestations: each verdict on the present candidate, hash-linked (R4).

A link is signed when its verdict is in the log, and is itself a fact of the log then. Everything in
it comes from the log, so whoever dies between signing and stating it signs the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from contracts.base import Digest
from contracts.card import ATTESTATION_TYPE, Attestation
from contracts.envelope import Recorded
from contracts.evaluation import GateJudged
from contracts.registry import VerdictAttested
from contracts.rollout import RolloutCompleted, StageJudged
from contracts.run import Run
from contracts.training import AdapterTrained
from shared.artifacts import ArtifactStore
from shared.bundles.card import SignedCard
from shared.bundles.chain import verdict_name
from shared.bundles.layout import attestation_path
from shared.errors import SignatureInvalid
from shared.signing import PublicKey, SigningKey, open_envelope, payload_digest, sign

Keys = Sequence[PublicKey]


class Judged(NamedTuple):
    """A verdict and its place in the log."""

    record: Recorded
    verdict: GateJudged | StageJudged


def verdicts(run: Run) -> list[Judged]:
    """What was judged of the run's present candidate, in log order.

    Those of earlier candidates and attempts lie before the newest `AdapterTrained`.
    """
    since = max((r.seq for r in run.log if isinstance(r.event, AdapterTrained)), default=0)
    return [
        Judged(record, record.event)
        for record in run.log
        if record.seq > since and isinstance(record.event, GateJudged | StageJudged)
    ]


def completion(run: Run) -> Recorded | None:
    """The record that says the rollout of the present candidate is complete, if there is one."""
    trained = max((r.seq for r in run.log if isinstance(r.event, AdapterTrained)), default=0)
    found = [r for r in run.log if r.seq > trained and isinstance(r.event, RolloutCompleted)]
    return found[-1] if found else None


def attested(run: Run) -> list[VerdictAttested]:
    """The links that the log holds for the present candidate, in log order."""
    since = max((r.seq for r in run.log if isinstance(r.event, AdapterTrained)), default=0)
    return [
        record.event
        for record in run.log
        if record.seq > since and isinstance(record.event, VerdictAttested)
    ]


def awaits_attestation(run: Run) -> bool:
    """Whether a verdict of a registered candidate has no link yet. A closed chain takes no more."""
    if run.registered is None or run.promoted is not None:
        return False
    return len(attested(run)) < len(verdicts(run))


class Link(NamedTuple):
    """An attestation in the artifact store, and the digest of what it says."""

    made: Attestation
    envelope: Digest
    payload: Digest


def links(
    run: Run, signed: SignedCard, artifacts: ArtifactStore, key: SigningKey, trusted: Keys
) -> list[Link]:
    """Every verdict on the candidate as a link: those in the log as they are, the others signed.

    Raises:
        SignatureInvalid: a link of the log is not signed by `trusted` keys, or says otherwise than
            the log.

    """
    held, found = attested(run), list[Link]()
    for index, one in enumerate(verdicts(run)):
        wanted = _attestation(one, index, signed.payload, found[-1].payload if found else None)
        if index < len(held):
            link = _opened(held[index], artifacts, trusted)
            if link.made != wanted:
                raise SignatureInvalid(f"link {index} ({wanted.name}) is not the log's verdict")
        else:
            card = signed.card
            subjects = {card.adapter_id: card.training.adapter}
            envelope = sign(ATTESTATION_TYPE, wanted, subjects, key)
            link = Link(wanted, artifacts.put(envelope), payload_digest(envelope))
        found.append(link)
    return found


def _opened(fact: VerdictAttested, artifacts: ArtifactStore, trusted: Keys) -> Link:
    content = artifacts.get(fact.attestation)
    statement = open_envelope(content, trusted, predicate_type=ATTESTATION_TYPE)
    made = Attestation.model_validate(statement.predicate)
    return Link(made, fact.attestation, statement.payload)


def files(found: Iterable[Link]) -> dict[str, Digest]:
    """The links by their path in a bundle."""
    return {attestation_path(one.made.index, one.made.name): one.envelope for one in found}


def _attestation(judged: Judged, index: int, card: Digest, previous: Digest | None) -> Attestation:
    return Attestation(
        name=verdict_name(judged.verdict),
        index=index,
        card=card,
        previous=previous,
        verdict=judged.verdict,
        event_id=judged.record.id,
        at=judged.record.at.isoformat(),
    )

"""From the run log to attestations: each verdict on the present candidate, hash-linked (R4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from contracts.base import Digest
from contracts.card import ATTESTATION_TYPE, Attestation
from contracts.envelope import Recorded
from contracts.evaluation import GateJudged
from contracts.rollout import RolloutCompleted, StageJudged
from contracts.run import Run
from contracts.training import AdapterTrained
from shared.bundles.chain import verdict_name
from shared.bundles.layout import attestation_path
from shared.signing import SigningKey, payload_digest, sign


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


def attest(
    judged: Iterable[Judged], *, card: Digest, adapter_id: str, adapter: Digest, key: SigningKey
) -> tuple[dict[str, bytes], tuple[Digest, ...]]:
    """Signed attestations by bundle path, and the digests of their payloads in order."""
    files: dict[str, bytes] = {}
    links: list[Digest] = []
    for index, one in enumerate(judged):
        link = _attestation(one, index, card, links[-1] if links else None)
        envelope = sign(ATTESTATION_TYPE, link, {adapter_id: adapter}, key)
        files[attestation_path(index, link.name)] = envelope
        links.append(payload_digest(envelope))
    return files, tuple(links)


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

"""The laws of an attestation chain: order, hash links, one card, one adapter, nothing left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contracts.base import Digest
from contracts.card import Attestation, Promotion
from contracts.evaluation import GateJudged
from contracts.rollout import StageJudged
from shared.bundles.card import SignedCard
from shared.bundles.layout import attestation_path, required_attestations


class Opened(NamedTuple):
    """One file of the chain; without an attestation if its signature does not hold."""

    path: str
    attestation: Attestation | None
    payload: Digest | None


def verdict_name(verdict: GateJudged | StageJudged) -> str:
    """The name of an attestation that holds `verdict`."""
    if isinstance(verdict, GateJudged):
        return verdict.gate
    return "G8" if verdict.stage == "shadow" else f"G9-{verdict.percent}%"


def chain_faults(chain: Sequence[Opened], signed: SignedCard) -> Iterator[tuple[str, str]]:
    """(path, reason) of every link that is out of place. Unopened links are faults already."""
    previous: Opened | None = None
    for place, link in enumerate(chain):
        made = link.attestation
        if made is not None:
            if made.index != place or link.path != attestation_path(place, made.name):
                yield link.path, f"is link {made.index} ({made.name}), found at place {place}"
            before = previous.payload if previous else None
            if (previous is None or before is not None) and made.previous != before:
                yield link.path, "does not follow the link before it"
            for reason in _misfits(made, signed):
                yield link.path, reason
        previous = link


def _misfits(made: Attestation, signed: SignedCard) -> Iterator[str]:
    if made.card != signed.payload:
        yield "attests another card"
    if made.name != verdict_name(made.verdict):
        yield f"is named {made.name} and holds a verdict of {verdict_name(made.verdict)}"
    verdict = made.verdict
    if isinstance(verdict, GateJudged):
        if verdict.candidate != signed.card.training.adapter:
            yield "judges another candidate"
    elif verdict.adapter_id != signed.card.adapter_id:
        yield "judges another adapter"
    elif verdict.deployment != signed.card.job.rollout.deployment:
        yield "judges another deployment"


def newest_verdicts(chain: Sequence[Opened]) -> dict[str, str]:
    """Attestation name → its newest verdict, in the order of the newest links."""
    newest: dict[str, str] = {}
    for link in chain:
        if link.attestation is not None:
            newest.pop(link.attestation.name, None)
            newest[link.attestation.name] = link.attestation.verdict.verdict
    return newest


def missing_verdicts(chain: Sequence[Opened], signed: SignedCard) -> tuple[str, ...]:
    """Required names whose newest verdict the job's policy does not accept."""
    newest = newest_verdicts(chain)
    return tuple(
        name
        for name in required_attestations(signed.card.job)
        if not signed.card.job.gates.accepts(name, newest.get(name, ""))
    )


def promotion_faults(
    promotion: Promotion, signed: SignedCard, chain: Sequence[Opened]
) -> Iterator[str]:
    """Why `promotion` does not close this chain. A chain with an unopened link is not compared."""
    if promotion.card != signed.payload or promotion.adapter_id != signed.card.adapter_id:
        yield "promotes another card"
    if promotion.deployment != signed.card.job.rollout.deployment:
        yield "promotes to another deployment than the job's"
    payloads = tuple(link.payload for link in chain)
    if None not in payloads and payloads != promotion.links:
        yield "its links are not the attestations here"

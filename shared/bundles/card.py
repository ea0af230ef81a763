"""A signed Adaptation Card, opened: what it says and the exact files it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from contracts.base import Digest
from contracts.card import CARD_TYPE, AdaptationCard
from shared.bundles.layout import ADAPTER, WEIGHTS, below, tree_digest
from shared.errors import SignatureInvalid
from shared.signing import PublicKey, open_envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCard:
    """A verified card. `payload` is the digest attestations point at."""

    card: AdaptationCard
    payload: Digest
    files: dict[str, Digest]
    """Adapter file, relative to the adapter folder → digest."""


def open_card(envelope: bytes, keys: Sequence[PublicKey], *, threshold: int = 1) -> SignedCard:
    """The card in `envelope`, whose subjects must be the adapter it describes.

    Raises:
        SignatureInvalid: not signed by `keys`, not a card, or about other files than it says.

    """
    statement = open_envelope(envelope, keys, predicate_type=CARD_TYPE, threshold=threshold)
    try:
        card = AdaptationCard.model_validate(statement.predicate)
    except ValidationError as error:
        raise SignatureInvalid(f"signed, but not a card: {error}") from error
    if not all(name.startswith(ADAPTER) for name in statement.subjects):
        raise SignatureInvalid("the card speaks of files outside adapter/")
    files = below(ADAPTER, statement.subjects)
    if files.get(WEIGHTS) != card.training.weights:
        raise SignatureInvalid("the card's weights are not among its subjects")
    if tree_digest(files) != card.training.adapter:
        raise SignatureInvalid("the card's subjects are not the adapter it names")
    passed = {
        verdict.gate
        for verdict in card.gates
        if card.job.gates.accepts(verdict.gate, verdict.verdict)
        and verdict.candidate == card.training.adapter
    }
    if lacking := [gate for gate in card.job.gates.required if gate not in passed]:
        raise SignatureInvalid(f"the card has no passed verdict for {', '.join(lacking)}")
    return SignedCard(card=card, payload=statement.payload, files=files)

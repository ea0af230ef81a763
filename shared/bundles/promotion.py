"""A promoted bundle in the artifact store: its chain, without its weights.

Whoever serves an adapter asks this before it gets full traffic. The weights are compared by digest
alone, for the store verifies every file that it hands out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from contracts.base import Digest
from contracts.card import ATTESTATION_TYPE, PROMOTION_TYPE, Attestation, Promotion
from shared.bundles import layout
from shared.bundles.card import SignedCard, open_card
from shared.bundles.chain import Opened, chain_faults, missing_verdicts, promotion_faults
from shared.errors import SignatureInvalid
from shared.signing import PublicKey, open_envelope

Read = Callable[[Digest], bytes]


def require_promoted(
    bundle: Mapping[str, Digest], read: Read, keys: Sequence[PublicKey]
) -> SignedCard:
    """The card of a bundle whose chain is complete, from the candidate's card to its promotion.

    `bundle` names the files by path, and `read` brings the content of one.

    Raises:
        SignatureInvalid: a link is missing, out of place or not signed by `keys`; it is named.
        ArtifactMissing, ArtifactCorrupt: what `read` raises.

    """
    for name in (layout.CARD, layout.PROMOTION):
        if name not in bundle:
            raise SignatureInvalid(f"{name} is missing")
    signed = open_card(read(bundle[layout.CARD]), keys)
    if layout.below(layout.ADAPTER, bundle) != signed.files:
        raise SignatureInvalid("its adapter is not the one on its card")
    chain = list(_attestations(bundle, read, keys))
    statement = open_envelope(read(bundle[layout.PROMOTION]), keys, predicate_type=PROMOTION_TYPE)
    try:
        promotion = Promotion.model_validate(statement.predicate)
    except ValidationError as error:
        raise SignatureInvalid(f"{layout.PROMOTION} is no promotion: {error}") from error
    faults = [f"{path} {reason}" for path, reason in chain_faults(chain, signed)]
    faults += [
        f"{layout.PROMOTION} {reason}" for reason in promotion_faults(promotion, signed, chain)
    ]
    others = {name: digest for name, digest in bundle.items() if name != layout.PROMOTION}
    if others != statement.subjects:
        faults.append(f"{layout.PROMOTION} speaks of other files")
    if missing := missing_verdicts(chain, signed):
        faults.append(f"there is no passed verdict for {', '.join(missing)}")
    if faults:
        raise SignatureInvalid("; ".join(faults))
    return signed


def _attestations(
    bundle: Mapping[str, Digest], read: Read, keys: Sequence[PublicKey]
) -> Iterator[Opened]:
    for path in sorted(name for name in bundle if name.startswith(layout.ATTESTATIONS)):
        statement = open_envelope(read(bundle[path]), keys, predicate_type=ATTESTATION_TYPE)
        try:
            made = Attestation.model_validate(statement.predicate)
        except ValidationError as error:
            raise SignatureInvalid(f"{path} is no attestation: {error}") from error
        yield Opened(path, made, statement.payload)

"""Which base an adapter may run on: the exact checkpoint, or a signed derivation (ERRATA 17)."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.base import Digest
from contracts.card import DERIVATION_TYPE, Derivation
from shared.errors import SignatureInvalid
from shared.signing import PublicKey, SigningKey, open_envelope, sign


def sign_derivation(derivation: Derivation, signer: SigningKey) -> bytes:
    """The envelope of a derivation record."""
    subjects = {"derived": derivation.derived, "source": derivation.source}
    return sign(DERIVATION_TYPE, derivation, subjects, signer)


def base_serves(
    trained_on: Digest,
    loaded: Digest,
    *,
    derivations: Sequence[bytes] = (),
    keys: Sequence[PublicKey] = (),
) -> bool:
    """Whether an adapter trained on `trained_on` may run on the base `loaded`.

    A derivation that does not verify counts for nothing.
    """
    if trained_on == loaded:
        return True
    for envelope in derivations:
        try:
            statement = open_envelope(envelope, keys, predicate_type=DERIVATION_TYPE)
            record = Derivation.model_validate(statement.predicate)
        except (SignatureInvalid, ValueError):
            continue
        if (record.source, record.derived) == (trained_on, loaded):
            return True
    return False

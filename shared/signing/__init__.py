"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519, canonical JSON."""

from shared.signing.envelope import Statement, open_envelope, payload_digest, sign
from shared.signing.keys import PublicKey, SigningKey

__all__ = ["PublicKey", "SigningKey", "Statement", "open_envelope", "payload_digest", "sign"]

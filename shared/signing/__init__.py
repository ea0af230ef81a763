"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519, canonical JSON."""

from shared.signing.envelope import Statement, countersign, open_envelope, payload_digest, sign
from shared.signing.keys import PublicKey, SigningKey, load_ring

__all__ = [
    "PublicKey",
    "SigningKey",
    "Statement",
    "countersign",
    "load_ring",
    "open_envelope",
    "payload_digest",
    "sign",
]

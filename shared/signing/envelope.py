"""Statements in envelopes: who says what about which bytes.

A *statement* (in-toto v1) binds a predicate, such as an Adaptation Card, to subjects: names with
SHA-256 digests. Its RFC 8785 canonical JSON is the payload of a DSSE envelope, signed with Ed25519.

There is exactly one valid spelling of an envelope. Opening one re-serializes what was read and
compares bytes, so unknown fields, duplicate keys, white space and loose base64 are all rejected,
and a flipped bit anywhere in the file is noticed even where the signature does not reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785
from pydantic import BaseModel
from securesystemslib.dsse import Envelope

from contracts.base import Digest, Problem, digest_of
from contracts.card import PAYLOAD_TYPE, STATEMENT_TYPE
from shared.errors import InvalidInput, SignatureInvalid
from shared.signing.keys import PublicKey, SigningKey

MAXIMUM_ENVELOPE_BYTES = 16 << 20
_LARGEST_EXACT = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A verified statement."""

    predicate_type: str
    predicate: dict[str, Any]
    subjects: dict[str, Digest]
    payload: Digest
    """Digest of the payload: what later links of a chain point at."""
    key_id: str


def sign(
    predicate_type: str,
    predicate: BaseModel | Mapping[str, Any],
    subjects: Mapping[str, Digest],
    signer: SigningKey,
) -> bytes:
    """The envelope of one statement, as canonical JSON. The same input gives the same bytes.

    Raises:
        InvalidInput: the predicate has no canonical JSON (an integer beyond 2^53, say).

    """
    if isinstance(predicate, BaseModel):
        predicate = json.loads(predicate.model_dump_json(by_alias=True))
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": subjects[name].removeprefix("sha256:")}}
            for name in sorted(subjects)
        ],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    try:
        payload = rfc8785.dumps(statement)
    except rfc8785.CanonicalizationError as error:
        problem = Problem(
            where=predicate_type,
            problem=f"has no canonical JSON: {error}",
            mend="keep integers within 2^53 and text free of lone surrogates",
        )
        raise InvalidInput([problem]) from error
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer.signer)
    return rfc8785.dumps(envelope.to_dict())


def open_envelope(
    content: bytes, keys: Sequence[PublicKey], *, predicate_type: str | None = None
) -> Statement:
    """The statement inside `content`, signed by one of `keys`.

    Raises:
        SignatureInvalid: for anything whatever that is not exactly what `sign` writes.

    """
    try:
        return _open(content, keys, predicate_type)
    except SignatureInvalid:
        raise
    except Exception as error:  # a verifier that crashes has not verified
        raise SignatureInvalid(
            f"not a signed statement ({type(error).__name__}: {error})"
        ) from error


def payload_digest(envelope: bytes) -> Digest:
    """Digest of an envelope's payload, unverified: for envelopes we have just signed."""
    return digest_of(Envelope.from_dict(json.loads(envelope)).payload)


def _open(content: bytes, keys: Sequence[PublicKey], predicate_type: str | None) -> Statement:
    if len(content) > MAXIMUM_ENVELOPE_BYTES:
        raise SignatureInvalid(f"envelope is larger than {MAXIMUM_ENVELOPE_BYTES} bytes")
    envelope = Envelope.from_dict(_parse(content))
    if rfc8785.dumps(envelope.to_dict()) != content:
        raise SignatureInvalid("envelope is not in its canonical form")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SignatureInvalid(f"payload type is {envelope.payload_type!r}")
    signatures = list(envelope.signatures.values())
    if len(signatures) != 1 or signatures[0].unrecognized_fields:
        raise SignatureInvalid("envelope holds other than one plain signature")
    by_id = {key.key_id: key for key in keys}
    key = by_id.get(signatures[0].keyid)
    if key is None:
        raise SignatureInvalid(
            f"signed by the unknown key {signatures[0].keyid[:16]}",
            mend="verify with the public key of the registry that signed it",
        )
    envelope.verify([key.verifier], threshold=1)
    return _statement(envelope.payload, key.key_id, predicate_type)


def _statement(payload: bytes, key_id: str, expected_type: str | None) -> Statement:
    read = _parse(payload)
    if rfc8785.dumps(read) != payload:
        raise SignatureInvalid("payload is not in its canonical form")
    if set(read) != {"_type", "subject", "predicateType", "predicate"}:
        raise SignatureInvalid(f"statement has the fields {sorted(read)}")
    if read["_type"] != STATEMENT_TYPE:
        raise SignatureInvalid(f"statement type is {read['_type']!r}")
    if expected_type is not None and read["predicateType"] != expected_type:
        raise SignatureInvalid(f"states {read['predicateType']!r}, expected {expected_type!r}")
    subjects = {row["name"]: f"sha256:{row['digest']['sha256']}" for row in read["subject"]}
    if len(subjects) != len(read["subject"]) or not isinstance(read["predicate"], dict):
        raise SignatureInvalid("statement repeats a subject or has no predicate")
    return Statement(
        predicate_type=read["predicateType"],
        predicate=read["predicate"],
        subjects=subjects,
        payload=digest_of(payload),
        key_id=key_id,
    )


def _parse(content: bytes) -> Any:
    def exact(text: str) -> int | float:
        number = int(text) if len(text) < 20 else float(text)
        return number if abs(number) <= _LARGEST_EXACT else float(text)

    return json.loads(content.decode("utf-8"), parse_int=exact)

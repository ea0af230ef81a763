"""Statements in envelopes: who says what about which bytes.

A *statement* (in-toto v1) binds a predicate, such as an Adaptation Card, to subjects: names with
SHA-256 digests. Its RFC 8785 canonical JSON is the payload of a DSSE envelope, signed with Ed25519.

An envelope may carry several signatures: each must be by a trusted key, or a flipped bit in one
would go unnoticed. There is exactly one valid spelling of an envelope. Opening one re-serializes
what was read and compares bytes, so unknown fields, duplicate keys, white space and loose base64
are all rejected, and a flipped bit anywhere in the file is noticed even where no signature
reaches.
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
    key_ids: tuple[str, ...]
    """Who signed, ascending."""


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


def countersign(envelope: bytes, keys: Sequence[PublicKey], signer: SigningKey) -> bytes:
    """The envelope with one more signature, for whoever asks for two (`threshold`).

    Raises:
        SignatureInvalid: it does not verify with `keys`, or `signer` has signed it already.

    """
    if signer.public.key_id in open_envelope(envelope, keys).key_ids:
        raise SignatureInvalid(f"the key {signer.public.key_id[:16]} has signed it already")
    read = Envelope.from_dict(json.loads(envelope))
    read.sign(signer.signer)
    read.signatures = dict(sorted(read.signatures.items()))
    return rfc8785.dumps(read.to_dict())


def open_envelope(
    content: bytes,
    keys: Sequence[PublicKey],
    *,
    predicate_type: str | None = None,
    threshold: int = 1,
) -> Statement:
    """The statement inside `content`, signed by at least `threshold` of `keys` and nobody else.

    Raises:
        SignatureInvalid: for anything whatever that is not exactly what `sign` writes.

    """
    try:
        return _open(content, keys, predicate_type, threshold)
    except SignatureInvalid:
        raise
    except Exception as error:  # a verifier that crashes has not verified
        raise SignatureInvalid(
            f"not a signed statement ({type(error).__name__}: {error})"
        ) from error


def payload_digest(envelope: bytes) -> Digest:
    """Digest of an envelope's payload, unverified: for envelopes we have just signed."""
    return digest_of(Envelope.from_dict(json.loads(envelope)).payload)


def _open(
    content: bytes, keys: Sequence[PublicKey], predicate_type: str | None, threshold: int
) -> Statement:
    if len(content) > MAXIMUM_ENVELOPE_BYTES:
        raise SignatureInvalid(f"envelope is larger than {MAXIMUM_ENVELOPE_BYTES} bytes")
    envelope = Envelope.from_dict(_parse(content))
    if rfc8785.dumps(envelope.to_dict()) != content:
        raise SignatureInvalid("envelope is not in its canonical form")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SignatureInvalid(f"payload type is {envelope.payload_type!r}")
    signers = _signers(envelope, keys)
    if len(signers) < max(1, threshold):
        raise SignatureInvalid(
            f"carries {len(signers)} signature(s), {threshold} wanted",
            mend="let another key holder run `sluice countersign`",
        )
    for key in signers:
        envelope.verify([key.verifier], threshold=1)
    return _statement(envelope.payload, tuple(key.key_id for key in signers), predicate_type)


def _signers(envelope: Envelope, keys: Sequence[PublicKey]) -> list[PublicKey]:
    by_id = {key.key_id: key for key in keys}
    signatures = list(envelope.signatures.values())
    ids = [signature.keyid for signature in signatures]
    if not ids or ids != sorted(set(ids)) or any(s.unrecognized_fields for s in signatures):
        raise SignatureInvalid("envelope holds other than plain signatures, ordered by key")
    for key_id in ids:
        if key_id not in by_id:
            raise SignatureInvalid(
                f"signed by the unknown key {key_id[:16]}",
                mend="verify with the public keys of the registry that signed it",
            )
    return [by_id[key_id] for key_id in ids]


def _statement(payload: bytes, key_ids: tuple[str, ...], expected_type: str | None) -> Statement:
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
        key_ids=key_ids,
    )


def _parse(content: bytes) -> Any:
    def exact(text: str) -> int | float:
        number = int(text) if len(text) < 20 else float(text)
        return number if abs(number) <= _LARGEST_EXACT else float(text)

    return json.loads(content.decode("utf-8"), parse_int=exact)

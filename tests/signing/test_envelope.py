"""Signing: one spelling of an envelope, and nothing else opens."""

from __future__ import annotations

import base64
import json
import random
import stat
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import digest_of
from shared.errors import InvalidInput, Misconfigured, SignatureInvalid
from shared.signing import (
    PublicKey,
    SigningKey,
    countersign,
    load_ring,
    open_envelope,
    payload_digest,
    sign,
)

KEY = SigningKey.generate()
TYPE = "https://sluiceway.dev/card/v1"
SUBJECTS = {"adapter/adapter_model.safetensors": digest_of(b"weights")}
ENVELOPE = sign(TYPE, {"name": "café", "share": 0.8, "n": 3}, SUBJECTS, KEY)

exact_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('aé\n"', max_size=4), inner)
    ),
    max_leaves=10,
)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


@pytest.mark.req("R3")
@given(st.dictionaries(st.text("abc", min_size=1), exact_json, max_size=4))
def test_what_is_signed_is_what_opens(predicate: dict[str, object]) -> None:
    opened = open_envelope(sign(TYPE, predicate, SUBJECTS, KEY), [KEY.public], predicate_type=TYPE)
    assert opened.predicate == predicate
    assert opened.subjects == SUBJECTS


def test_the_same_statement_has_the_same_bytes() -> None:
    again = sign(TYPE, {"n": 3, "share": 0.8, "name": "café"}, SUBJECTS, KEY)
    assert again == ENVELOPE
    assert payload_digest(again) == open_envelope(again, [KEY.public]).payload


@pytest.mark.req("R3")
def test_every_single_flipped_bit_of_an_envelope_is_rejected() -> None:
    for bit in range(len(ENVELOPE) * 8):
        with pytest.raises(SignatureInvalid):
            open_envelope(flipped(ENVELOPE, bit), [KEY.public])


@pytest.mark.req("R3")
def test_cutting_or_growing_an_envelope_is_rejected() -> None:
    draw = random.Random(5)
    for _ in range(200):
        at = draw.randrange(len(ENVELOPE))
        for changed in (ENVELOPE[:at], ENVELOPE[:at] + b" " + ENVELOPE[at:], ENVELOPE + b"\n"):
            with pytest.raises(SignatureInvalid):
                open_envelope(changed, [KEY.public])


def rewritten(**changes: object) -> bytes:
    return rfc8785.dumps({**json.loads(ENVELOPE), **changes})


def _signature(**changes: object) -> list[dict[str, object]]:
    return [{**json.loads(ENVELOPE)["signatures"][0], **changes}]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[" * 200_000, id="nested too deep"),
        pytest.param(b" " * (16 << 20) + b"{}", id="too large"),
        pytest.param(rewritten(extra=1), id="unknown field"),
        pytest.param(rewritten(signatures=[]), id="no signature"),
        pytest.param(rewritten(signatures=_signature(note="x")), id="unknown signature field"),
        pytest.param(rewritten(signatures=_signature() * 2), id="repeated signature"),
        pytest.param(rewritten(signatures=_signature(keyid="0" * 64)), id="unknown key"),
        pytest.param(rewritten(payloadType="text/plain"), id="another payload type"),
        pytest.param(rewritten(payload=base64.b64encode(b"{}").decode()), id="another payload"),
        pytest.param(ENVELOPE[:-1] + b',"payload":"e30="}', id="duplicate key"),
        pytest.param(json.dumps(json.loads(ENVELOPE), indent=1).encode(), id="pretty-printed"),
    ],
)
def test_anything_but_the_canonical_envelope_is_rejected(content: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        open_envelope(content, [KEY.public])


def test_a_signed_payload_in_another_spelling_is_rejected() -> None:
    from securesystemslib.dsse import Envelope

    payload = json.dumps({"predicate": {}, "_type": "https://in-toto.io/Statement/v1"}).encode()
    envelope = Envelope(payload, "application/vnd.in-toto+json", {})
    envelope.sign(KEY.signer)
    with pytest.raises(SignatureInvalid, match="payload is not in its canonical form"):
        open_envelope(rfc8785.dumps(envelope.to_dict()), [KEY.public])


def test_another_key_is_rejected_and_named() -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        open_envelope(ENVELOPE, [SigningKey.generate().public])


def test_a_statement_of_another_type_does_not_pass_for_a_card() -> None:
    certificate = sign("https://sluiceway.dev/do-not-train/v1", {}, SUBJECTS, KEY)
    with pytest.raises(SignatureInvalid, match="expected"):
        open_envelope(certificate, [KEY.public], predicate_type=TYPE)


def test_an_integer_without_canonical_form_is_refused_at_signing() -> None:
    with pytest.raises(InvalidInput, match="canonical JSON"):
        sign(TYPE, {"n": 2**53 + 1}, SUBJECTS, KEY)


def test_the_first_start_creates_a_private_key_and_later_starts_keep_it(tmp_path: Path) -> None:
    first = SigningKey.load_or_create(tmp_path / "keys")
    again = SigningKey.load_or_create(tmp_path / "keys")
    assert first.public == again.public
    private = tmp_path / "keys" / "signing-key.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert load_ring(tmp_path / "keys" / "signing-key.pub") == (first.public,)
    assert sorted(p.name for p in private.parent.iterdir()) == [
        "signing-key.pem",
        "signing-key.pub",
    ]


def test_a_private_key_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.load_or_create(tmp_path)
    (tmp_path / "signing-key.pem").chmod(0o644)
    with pytest.raises(Misconfigured, match="read by others"):
        SigningKey.load_or_create(tmp_path)


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        PublicKey.from_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(Misconfigured):
        load_ring(tmp_path / "none.pub")
    (tmp_path / "empty.pub").write_bytes(b"no key")
    with pytest.raises(Misconfigured, match="holds no public key"):
        load_ring(tmp_path / "empty.pub")


@pytest.mark.req("R3")
def test_after_a_rotation_the_new_key_signs_and_the_old_signatures_hold(tmp_path: Path) -> None:
    old = SigningKey.load_or_create(tmp_path)
    before = sign(TYPE, {"n": 1}, SUBJECTS, old)
    new = SigningKey.rotate(tmp_path)
    ring = load_ring(tmp_path / "signing-key.pub")
    assert ring == (new.public, old.public)
    assert SigningKey.load_or_create(tmp_path).public == new.public
    assert load_ring(tmp_path / "signing-key.pub") == ring  # a start does not forget the old one
    after = sign(TYPE, {"n": 1}, SUBJECTS, new)
    for envelope in (before, after):
        assert open_envelope(envelope, ring).predicate == {"n": 1}
    with pytest.raises(SignatureInvalid, match="unknown key"):
        open_envelope(after, [old.public])
    newest = SigningKey.rotate(tmp_path)
    assert [key.key_id for key in load_ring(tmp_path / "signing-key.pub")] == [
        key.public.key_id for key in (newest, new, old)
    ]
    assert stat.S_IMODE((tmp_path / "signing-key.pem").stat().st_mode) == 0o600


@pytest.mark.req("R3")
def test_two_signatures_are_wanted_and_each_must_be_by_another_trusted_key() -> None:
    second = SigningKey.generate()
    both = [KEY.public, second.public]
    once = sign(TYPE, {"n": 1}, SUBJECTS, KEY)
    twice = countersign(once, both, second)
    assert open_envelope(twice, both, threshold=2).key_ids == tuple(
        sorted(key.key_id for key in both)
    )
    with pytest.raises(SignatureInvalid, match="carries 1 signature"):
        open_envelope(once, both, threshold=2)
    with pytest.raises(SignatureInvalid, match="unknown key"):
        open_envelope(twice, [KEY.public])
    with pytest.raises(SignatureInvalid, match="has signed it already"):
        countersign(twice, both, second)
    read = json.loads(twice)
    for broken in (
        {**read, "signatures": read["signatures"][::-1]},
        {**read, "signatures": [read["signatures"][0]] * 2},
        {**read, "signatures": []},
    ):
        with pytest.raises(SignatureInvalid):
            open_envelope(rfc8785.dumps(broken), both)


@pytest.mark.req("R3")
def test_a_bit_flipped_in_either_of_two_signatures_is_found() -> None:
    second = SigningKey.generate()
    both = [KEY.public, second.public]
    twice = countersign(sign(TYPE, {"n": 1}, SUBJECTS, KEY), both, second)
    for place in range(twice.index(b'"signatures"'), len(twice)):
        changed = bytearray(twice)
        changed[place] ^= 1
        with pytest.raises(SignatureInvalid):
            open_envelope(bytes(changed), both)

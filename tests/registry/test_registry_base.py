"""Which base an adapter may run on: the exact one, or a signed derivation of it (ERRATA 17)."""

from __future__ import annotations

import pytest

from contracts.card import Derivation
from shared.bundles.base import base_serves, sign_derivation
from shared.signing import SigningKey
from shared.testing.runs import START, digest

KEY = SigningKey.generate()
RECORD = sign_derivation(
    Derivation(
        source=digest("base"), derived=digest("int8"), tool="quantizer 1.0", at=START.isoformat()
    ),
    KEY,
)


@pytest.mark.req("R2")
def test_the_exact_base_serves_and_another_does_not() -> None:
    assert base_serves(digest("base"), digest("base"))
    assert not base_serves(digest("base"), digest("other"))


@pytest.mark.req("R2")
def test_a_signed_derivation_serves_in_its_one_direction() -> None:
    known = {"derivations": [RECORD], "keys": [KEY.public]}
    assert base_serves(digest("base"), digest("int8"), **known)
    assert not base_serves(digest("int8"), digest("base"), **known)
    assert not base_serves(digest("base"), digest("int4"), **known)


@pytest.mark.req("R2")
def test_a_derivation_that_does_not_verify_counts_for_nothing() -> None:
    stranger = SigningKey.generate().public
    changed = RECORD.replace(b"A", b"B", 1)
    for record, key in ((RECORD, stranger), (changed, KEY.public), (b"", KEY.public)):
        assert not base_serves(digest("base"), digest("int8"), derivations=[record], keys=[key])

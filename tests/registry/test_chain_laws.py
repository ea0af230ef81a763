"""The laws of the chain hold even against statements that the right key signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.base import digest_of
from contracts.card import ATTESTATION_TYPE, CARD_TYPE, PROMOTION_TYPE
from shared.bundles import verify_bundle
from shared.signing import SigningKey, open_envelope, payload_digest, sign
from tests.registry.registry_office import Office

Change = Callable[[dict[str, Any]], dict[str, Any]]
OTHER = digest_of(b"other")


@pytest.fixture
def bundle(office: Office, tmp_path: Path) -> Path:
    office.promoted(tmp_path / "bundle")
    (tmp_path / "bundle" / ".tree").unlink()
    return tmp_path / "bundle"


def resign(path: Path, kind: str, key: SigningKey, change: Change) -> None:
    opened = open_envelope(path.read_bytes(), [key.public], predicate_type=kind)
    path.write_bytes(sign(kind, change(opened.predicate), opened.subjects, key))


def reseal(bundle: Path, key: SigningKey, change: Change = dict) -> None:
    """Sign a promotion over whatever the folder now holds."""
    path = bundle / "promotion.dsse.json"
    opened = open_envelope(path.read_bytes(), [key.public])
    subjects = {
        file.relative_to(bundle).as_posix(): digest_of(file.read_bytes())
        for file in bundle.rglob("*")
        if file.is_file() and file != path
    }
    links = [
        payload_digest(file.read_bytes()) for file in sorted((bundle / "attestations").iterdir())
    ]
    path.write_bytes(
        sign(PROMOTION_TYPE, change({**opened.predicate, "links": links}), subjects, key)
    )


def reasons(bundle: Path, key: SigningKey) -> dict[str, str]:
    return {link.name: link.reason for link in verify_bundle(bundle, key.public).failed}


def test_resealing_an_unchanged_bundle_verifies(bundle: Path, office: Office) -> None:
    reseal(bundle, office.key)
    assert reasons(bundle, office.key) == {}


@pytest.mark.req("R4")
@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("09-G9-100%", {"previous": OTHER}, "does not follow the link before it"),
        ("00-G2", {"previous": OTHER}, "does not follow the link before it"),
        ("09-G9-100%", {"card": OTHER}, "attests another card"),
        ("09-G9-100%", {"index": 3}, "is link 3 (G9-100%), found at place 9"),
        ("09-G9-100%", {"verdict": {"adapter_id": "x-y-v1"}}, "judges another adapter"),
        ("09-G9-100%", {"verdict": {"deployment": "other"}}, "judges another deployment"),
        (
            "09-G9-100%",
            {"verdict": {"percent": 50}},
            "is named G9-100% and holds a verdict of G9-50%",
        ),
        ("04-G5", {"verdict": {"candidate": OTHER}}, "judges another candidate"),
    ],
)
def test_a_signed_attestation_out_of_place_is_named(
    bundle: Path, office: Office, name: str, change: dict[str, Any], reason: str
) -> None:
    path = bundle / "attestations" / f"{name}.dsse.json"

    def edit(was: dict[str, Any]) -> dict[str, Any]:
        verdict = {**was["verdict"], **change.get("verdict", {})}
        return {**was, **change, "verdict": verdict}

    resign(path, ATTESTATION_TYPE, office.key, edit)
    reseal(bundle, office.key)
    assert reasons(bundle, office.key)[f"attestations/{name}.dsse.json"] == reason


@pytest.mark.req("G10")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda was: {**was, "card": OTHER}, "promotes another card"),
        (lambda was: {**was, "adapter_id": "x-y-v1"}, "promotes another card"),
        (lambda was: {**was, "deployment": "x"}, "promotes to another deployment than the job's"),
        (
            lambda was: {**was, "links": was["links"][::-1]},
            "its links are not the attestations here",
        ),
    ],
    ids=["card", "adapter", "deployment", "links"],
)
def test_a_signed_promotion_of_something_else_is_refused(
    bundle: Path, office: Office, change: Change, reason: str
) -> None:
    reseal(bundle, office.key, change)
    assert reasons(bundle, office.key) == {"promotion.dsse.json": reason}


@pytest.mark.req("R3")
def test_a_signed_card_over_other_files_than_its_adapter_is_refused(
    bundle: Path, office: Office
) -> None:
    path = bundle / "card.dsse.json"
    opened = open_envelope(path.read_bytes(), [office.key.public])
    (bundle / "adapter" / "extra.json").write_bytes(b"{}")
    subjects = {**opened.subjects, "adapter/extra.json": digest_of(b"{}")}
    path.write_bytes(sign(CARD_TYPE, opened.predicate, subjects, office.key))
    reseal(bundle, office.key)
    reason = reasons(bundle, office.key)["card.dsse.json"]
    assert reason == "the card's subjects are not the adapter it names"

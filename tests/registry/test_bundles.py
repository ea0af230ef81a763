"""A promoted bundle verifies offline, and any change to it is found and named."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import rfc8785

from contracts.card import (
    ATTESTATION_TYPE,
    CARD_TYPE,
    PROMOTION_TYPE,
    REVOCATION_TYPE,
    Revocation,
)
from contracts.registry import CandidateRegistered
from shared.bundles import Verification, open_card, verify_bundle
from shared.bundles.layout import candidate_tree
from shared.signing import PublicKey, SigningKey, countersign, open_envelope, sign
from tests.registry.registry_office import Office, open_office

ATTESTATIONS = [
    "00-G2", "01-G1", "02-G3", "03-G4", "04-G5", "05-G8",
    "06-G9-1%", "07-G9-10%", "08-G9-50%", "09-G9-100%",
]  # fmt: skip


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SigningKey]:
    place = tmp_path_factory.mktemp("office")
    office = open_office(place)
    office.promoted(place / "bundle")
    office.store.close()
    (place / "bundle" / ".tree").unlink()
    return place / "bundle", office.key


@pytest.fixture
def bundle(sealed: tuple[Path, SigningKey], tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed[0], tmp_path / "bundle"))


@pytest.fixture
def key(sealed: tuple[Path, SigningKey]) -> SigningKey:
    return sealed[1]


def failed(verification: Verification) -> dict[str, str]:
    assert not verification.ok
    assert verification.state == "invalid"
    return {link.name: link.reason for link in verification.failed}


@pytest.mark.req("R3")
@pytest.mark.req("G10")
def test_a_promoted_bundle_verifies_with_the_public_key_alone(
    bundle: Path, key: SigningKey
) -> None:
    found = verify_bundle(bundle, PublicKey.from_pem(key.public.pem))
    assert (found.ok, found.state, found.failed) == (True, "promoted", ())
    assert found.adapter_id == "SmolLM2-135M-Instruct-tool_calls-v1"
    assert {link.name for link in found.links} == {
        "README.md", "card.html", "card.dsse.json", "promotion.dsse.json", "signing-key.pub",
        "chain",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "adapter/fingerprints.json", "adapter/recipe.json",
        *(f"attestations/{name}.dsse.json" for name in ATTESTATIONS),
    }  # fmt: skip


@pytest.mark.req("R3")
def test_any_flipped_bit_is_rejected_and_the_file_it_lies_in_is_named(
    bundle: Path, key: SigningKey
) -> None:
    draw = random.Random(20)
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    for turn in range(510):
        path = files[turn % len(files)]
        name = path.relative_to(bundle).as_posix()
        content = path.read_bytes()
        bit = draw.randrange(len(content) * 8)
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        assert name in failed(verify_bundle(bundle, key.public)), (name, bit)
        path.write_bytes(content)
    assert verify_bundle(bundle, key.public).ok


def test_only_the_flipped_file_is_blamed(bundle: Path, key: SigningKey) -> None:
    path = bundle / "attestations" / "02-G3.dsse.json"
    path.write_bytes(path.read_bytes().replace(b"A", b"B", 1))
    assert set(failed(verify_bundle(bundle, key.public))) == {"attestations/02-G3.dsse.json"}


@pytest.mark.req("R4")
def test_deleting_any_file_is_rejected_and_named(bundle: Path, key: SigningKey) -> None:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = path.relative_to(bundle).as_posix()
        content = path.read_bytes()
        path.unlink()
        blamed = failed(verify_bundle(bundle, key.public))
        if name == "promotion.dsse.json":
            assert blamed == dict.fromkeys(("README.md", "card.html"), "no signature covers it")
        else:
            assert blamed[name] == "is missing"
        path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["adapter/extra.json", "attestations/10-G5.dsse.json", "NOTES.md", "adapter/.hidden"]
)
def test_an_added_file_is_rejected_and_named(bundle: Path, key: SigningKey, name: str) -> None:
    (bundle / name).write_bytes(b"{}")
    assert name in failed(verify_bundle(bundle, key.public))


@pytest.mark.req("R4")
def test_attestations_in_another_order_are_rejected(bundle: Path, key: SigningKey) -> None:
    folder = bundle / "attestations"
    first, second = folder / "02-G3.dsse.json", folder / "03-G4.dsse.json"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    blamed = failed(verify_bundle(bundle, key.public))
    assert "found at place 2" in blamed["attestations/02-G3.dsse.json"]
    assert "attestations/03-G4.dsse.json" in blamed


def resign_promotion(bundle: Path, key: SigningKey, drop: str) -> None:
    """The registry's own key signs a promotion that forgets one attestation."""
    path = bundle / "promotion.dsse.json"
    opened = open_envelope(path.read_bytes(), [key.public], predicate_type=PROMOTION_TYPE)
    gone = bundle / "attestations" / f"{drop}.dsse.json"
    payload = open_envelope(gone.read_bytes(), [key.public]).payload
    gone.unlink()
    links = [link for link in opened.predicate["links"] if link != payload]
    subjects = {k: v for k, v in opened.subjects.items() if not k.endswith(f"{drop}.dsse.json")}
    path.write_bytes(sign(PROMOTION_TYPE, {**opened.predicate, "links": links}, subjects, key))


@pytest.mark.req("R4")
@pytest.mark.parametrize("drop", ["04-G5", "09-G9-100%"])
def test_a_promotion_that_skips_a_stage_is_refused_even_when_signed(
    bundle: Path, key: SigningKey, drop: str
) -> None:
    resign_promotion(bundle, key, drop)
    blamed = failed(verify_bundle(bundle, key.public))
    assert blamed["chain"] == f"no passed verdict for {drop[3:]}"


@pytest.mark.req("R4")
def test_a_signed_failure_does_not_count_as_passed(bundle: Path, key: SigningKey) -> None:
    last = bundle / "attestations" / "09-G9-100%.dsse.json"
    opened = open_envelope(last.read_bytes(), [key.public])
    verdict = {**opened.predicate["verdict"], "verdict": "inconclusive"}
    changed = {**opened.predicate, "verdict": verdict}
    last.write_bytes(sign(ATTESTATION_TYPE, changed, opened.subjects, key))
    blamed = failed(verify_bundle(bundle, key.public))
    assert blamed["chain"] == "no passed verdict for G9-100%"
    assert "attestations/09-G9-100%.dsse.json" in blamed


def test_a_card_that_leaves_out_a_required_gate_is_refused_even_when_signed(
    bundle: Path, key: SigningKey
) -> None:
    path = bundle / "card.dsse.json"
    opened = open_envelope(path.read_bytes(), [key.public], predicate_type=CARD_TYPE)
    fewer = {**opened.predicate, "gates": opened.predicate["gates"][:-1]}
    path.write_bytes(sign(CARD_TYPE, fewer, opened.subjects, key))
    reason = failed(verify_bundle(bundle, key.public))["card.dsse.json"]
    assert reason == "the card has no passed verdict for G5"


@pytest.mark.req("R3")
def test_another_key_verifies_nothing(bundle: Path) -> None:
    blamed = failed(verify_bundle(bundle, SigningKey.generate().public))
    assert {"card.dsse.json", "promotion.dsse.json", "signing-key.pub"} <= set(blamed)


def test_links_out_of_the_folder_are_refused(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    weights = bundle / "adapter" / "adapter_model.safetensors"
    shutil.move(weights, tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    name = "adapter/adapter_model.safetensors"
    assert "symbolic link" in failed(verify_bundle(bundle, key.public))[name]


def test_a_pipe_in_a_files_place_does_not_hang_the_verifier(bundle: Path, key: SigningKey) -> None:
    (bundle / "card.dsse.json").unlink()
    os.mkfifo(bundle / "card.dsse.json")
    assert "no regular file" in failed(verify_bundle(bundle, key.public))["card.dsse.json"]


def test_a_huge_sparse_document_is_not_read(bundle: Path, key: SigningKey) -> None:
    with (bundle / "promotion.dsse.json").open("r+b") as out:
        out.truncate(64 << 20)
    assert "larger than" in failed(verify_bundle(bundle, key.public))["promotion.dsse.json"]


def test_a_folder_that_is_not_there_does_not_verify(tmp_path: Path, key: SigningKey) -> None:
    assert not verify_bundle(tmp_path / "none", key.public).ok
    (tmp_path / "empty").mkdir()
    assert failed(verify_bundle(tmp_path / "empty", key.public))["card.dsse.json"] == "is missing"


@pytest.mark.req("R4")
def test_a_candidate_verifies_as_a_candidate_only(office: Office, tmp_path: Path) -> None:
    fact = office.registry.register(office.gated())
    assert isinstance(fact, CandidateRegistered)
    tree = candidate_tree(fact.card, office.artifacts.tree(fact.adapter))
    folder = office.artifacts.fetch_tree(
        office.artifacts.put(tree.to_bytes()), tmp_path / "candidate"
    )
    found = verify_bundle(folder, office.key.public)
    assert (found.ok, found.state) == (True, "candidate")
    (folder / ".tree").write_text("sha256:" + "0" * 64)
    assert ".tree" in failed(verify_bundle(folder, office.key.public))


@pytest.mark.req("R2")
def test_the_card_says_what_the_run_knew(bundle: Path, key: SigningKey) -> None:
    signed = open_card((bundle / "card.dsse.json").read_bytes(), [key.public])
    card = signed.card
    assert card.special_tokens == ("<|im_start|>", "<|im_end|>")
    assert (card.recipe.lora and card.recipe.lora.r, card.objective) == (4, "cross_entropy")
    assert [gate.gate for gate in card.gates] == ["G1", "G2", "G3", "G4", "G5"]
    assert card.monitoring == {
        "task_success": 0.9,
        "latency_p95_ratio": 3.0,
        "error_rate": 0.02,
    }
    assert (card.rollback, card.merge_policy) == ("base", "none")
    assert json.loads((bundle / "adapter" / "recipe.json").read_bytes())["base"] == card.base


def revocation(adapter_id: str, adapter: str) -> Revocation:
    return Revocation(
        adapter_id=adapter_id, adapter=adapter, kind="revoked", reason="a source lost its licence",
        at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


@pytest.mark.req("R4")
@pytest.mark.parametrize("by", ["id", "adapter", "neither"])
def test_a_revoked_bundle_fails_and_says_why(bundle: Path, key: SigningKey, by: str) -> None:
    signed = open_card((bundle / "card.dsse.json").read_bytes(), [key.public])
    other = "sha256:" + "0" * 64
    revoked = revocation(
        signed.card.adapter_id if by == "id" else "another-task-v1",
        signed.card.training.adapter if by == "adapter" else other,
    )
    envelope = sign(REVOCATION_TYPE, revoked, {"x": other}, key)
    found = verify_bundle(bundle, key.public, {"x.dsse.json": envelope})
    if by == "neither":
        assert found.ok
    else:
        assert failed(found) == {
            "x.dsse.json": f"{revoked.adapter_id} is revoked: a source lost its licence"
        }


@pytest.mark.parametrize("forged", ["nonsense", "another key's", "another document"])
def test_a_revocation_that_cannot_be_read_fails_the_bundle(
    bundle: Path, key: SigningKey, forged: str
) -> None:
    revoked = revocation("another-task-v1", "sha256:" + "0" * 64)
    envelope = {
        "nonsense": b"{}",
        "another key's": sign(REVOCATION_TYPE, revoked, {}, SigningKey.generate()),
        "another document": (bundle / "card.dsse.json").read_bytes(),
    }[forged]
    reasons = failed(verify_bundle(bundle, key.public, {"x": envelope}))
    assert reasons.keys() == {"x"}


@pytest.mark.req("R3")
def test_a_bundle_may_have_to_carry_two_signatures(bundle: Path, key: SigningKey) -> None:
    second = SigningKey.generate()
    both = [key.public, second.public]
    blamed = failed(verify_bundle(bundle, both, threshold=2))
    assert blamed == {"promotion.dsse.json": "carries 1 signature(s), 2 wanted"}
    path = bundle / "promotion.dsse.json"
    path.write_bytes(countersign(path.read_bytes(), both, second))
    assert verify_bundle(bundle, both, threshold=2).ok
    assert "unknown key" in failed(verify_bundle(bundle, key.public))["promotion.dsse.json"]


@pytest.mark.req("R3")
def test_a_bundle_of_a_retired_key_verifies_while_that_key_is_trusted(
    bundle: Path, key: SigningKey
) -> None:
    new = SigningKey.generate()
    assert verify_bundle(bundle, [new.public, key.public]).ok
    assert not verify_bundle(bundle, [new.public]).ok


MUTATIONS = 1000


@pytest.mark.timeout(900)
@pytest.mark.req("R3")
@pytest.mark.req("R4")
def test_no_random_mutation_of_card_chain_or_weights_is_accepted(
    bundle: Path, key: SigningKey, seed: int, long: bool
) -> None:
    """Bits, bytes, pieces, whole files, and JSON rewritten as if by somebody without the key."""
    draw, mutations = random.Random(seed), MUTATIONS * (3 if long else 1)
    names = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    accepted, kinds = [], Counter[str]()
    while kinds.total() < mutations:
        name = draw.choice(names)
        path, other = bundle / name, bundle / draw.choice([n for n in names if n != name])
        content = path.read_bytes()
        kind, changed = mutated(content, other.read_bytes(), draw)
        if changed == content:
            continue
        kinds[kind] += 1
        path.write_bytes(changed)
        if verify_bundle(bundle, key.public).ok:
            accepted.append((name, kind))
        path.write_bytes(content)
    print(f"{kinds.total()} mutations, {len(accepted)} accepted: {dict(kinds)}", flush=True)
    assert accepted == []
    assert len(kinds) == 6, kinds
    assert verify_bundle(bundle, key.public).ok


def mutated(content: bytes, other: bytes, draw: random.Random) -> tuple[str, bytes]:
    """What was done, and what came of it."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    kind = draw.choice(["flip", "cut", "insert", "replace", "swap", "rewrite"])
    if kind == "flip":
        place = draw.randrange(len(content))
        flipped = content[place] ^ (1 << draw.randrange(8))
        return kind, content[:place] + bytes([flipped]) + content[place + 1 :]
    if kind == "cut":
        return kind, content[:start] + content[end:]
    if kind == "insert":
        return kind, content[:start] + draw.randbytes(draw.randint(1, 20)) + content[start:]
    if kind == "replace":
        return kind, content[:start] + draw.randbytes(end - start) + content[end:]
    if kind == "swap":
        return kind, other
    return kind, rewritten(content, draw)


def rewritten(content: bytes, draw: random.Random) -> bytes:
    """An envelope whose statement says a little else, canonically, under the old signature."""
    try:
        envelope = json.loads(content)
        statement = json.loads(base64.b64decode(envelope["payload"]))
    except (ValueError, KeyError, TypeError):
        return content
    place = statement["predicate"]
    while isinstance(place[key := draw.choice(sorted(place))], dict) and place[key]:
        place = place[key]
    place[key] = draw.choice(["forged", 0.99, True, None, []])
    envelope["payload"] = base64.b64encode(rfc8785.dumps(statement)).decode()
    return rfc8785.dumps(envelope)

"""`sluice verify` says link by link what holds, with no broker in sight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.deliverable import deliver, deliverable
from services.cli.main import app
from shared.testing.runs import rollout_events
from tests.registry.registry_office import open_office


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Path]:
    """A promoted bundle and the public key it verifies with."""
    office = open_office(tmp_path)
    office.promoted(tmp_path / "bundle")
    office.store.close()
    key = tmp_path / "trusted.pub"
    key.write_bytes(office.key.public.pem)
    return tmp_path / "bundle", key


def verify(*arguments: object):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.mark.req("P8")
def test_a_promoted_bundle_verifies_and_a_flipped_bit_is_named(bundle) -> None:
    folder, key = bundle
    good = verify(folder, "--key", key, "--json")
    assert good.exit_code == 0
    assert (json.loads(good.stdout)["ok"], json.loads(good.stdout)["state"]) == (True, "promoted")
    weights = folder / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    bad = verify(folder, "--key", key)
    assert bad.exit_code == 1
    assert "✗ adapter/adapter_model.safetensors: " in bad.stdout
    assert "does not verify" in bad.stdout


def test_a_missing_bundle_or_key_is_an_error_with_a_mend(bundle, tmp_path) -> None:
    folder, key = bundle
    nowhere = verify(tmp_path / "nowhere", "--key", key)
    assert nowhere.exit_code == 2
    assert "mend: fetch the bundle with `sluice card RUN`" in nowhere.stderr
    keyless = verify(folder, "--key", tmp_path / "no.pub")
    assert keyless.exit_code == 1
    assert "mend: " in keyless.stderr


@pytest.mark.req("R3")
def test_a_second_person_countersigns_and_the_threshold_is_met(bundle, tmp_path) -> None:
    folder, key = bundle
    run = CliRunner()
    short = verify(folder, "--key", key, "--threshold", 2)
    assert "carries 1 signature(s), 2 wanted" in short.stdout
    mine = tmp_path / "mine"
    done = run.invoke(
        app, ["countersign", str(folder), "--key", str(key), "--signing-folder", str(mine)]
    )
    assert done.exit_code == 0, done.output
    both = ("--key", key, "--key", mine / "signing-key.pub")
    assert verify(folder, *both, "--threshold", 2).exit_code == 0


def test_a_rotated_key_is_listed_before_the_old_one(tmp_path) -> None:
    from shared.signing import SigningKey

    old = SigningKey.load_or_create(tmp_path)
    run = CliRunner()
    assert run.invoke(app, ["keys", "rotate", "--folder", str(tmp_path)]).exit_code == 0
    listed = run.invoke(app, ["keys", "list", "--folder", str(tmp_path), "--json"])
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [row["state"] for row in rows] == ["signs", "verifies what it signed before"]
    assert rows[1]["key_id"] == old.public.key_id


@pytest.mark.req("R4")
@pytest.mark.parametrize(
    ("stages", "reached", "not_yet"),
    [
        (0, "G5 passed", "G8, G9-1%, G9-10%, G9-50%, G9-100%, promotion"),
        (1, "G5 passed, G8 passed", "G9-1%, G9-10%, G9-50%, G9-100%, promotion"),
        (3, "G8 passed, G9-1% passed, G9-10% passed", "G9-50%, G9-100%, promotion"),
    ],
)
def test_a_candidate_says_which_stage_it_has_reached(tmp_path, stages, reached, not_yet) -> None:
    office = open_office(tmp_path)
    run = office.gated()
    run = office.attested(office.follow(run, office.registry.register(run)))
    for event in rollout_events(run.registered.adapter_id)[: 2 * stages]:
        run = office.attested(office.follow(run, event))
    folder, key = tmp_path / "candidate", tmp_path / "keys" / "signing-key.pub"
    files = deliver(deliverable(run, office.artifacts), office.artifacts, folder)
    office.store.close()
    assert sum(name.startswith("attestations/") for name in files) == 5 + stages
    found = verify(folder, "--key", key)
    assert found.exit_code == 0, found.output
    assert f"{reached}\nnot yet: {not_yet}\n" in found.stdout
    told = json.loads(verify(folder, "--key", key, "--json").stdout)
    assert told["reached"][-1] == reached.split(", ")[-1]
    first = sorted((folder / "attestations").iterdir())[0]
    first.unlink()  # a link from the middle or the start cannot be left out
    assert verify(folder, "--key", key).exit_code == 1

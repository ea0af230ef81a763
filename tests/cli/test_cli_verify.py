"""`sluice verify` says link by link what holds, with no broker in sight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Path]:
    """A promoted bundle and the public key it verifies with."""
    from tests.registry.registry_office import open_office

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

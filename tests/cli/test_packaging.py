"""A rollout package: verified, complete, the same bytes each time, refused where it cannot run."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.card import RolloutPackage
from services.cli.main import app
from shared.bundles import verify_bundle
from shared.signing import load_ring
from tests.registry.registry_office import open_office


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Path]:
    office = open_office(tmp_path)
    office.promoted(tmp_path / "bundle")
    office.store.close()
    return tmp_path / "bundle", tmp_path / "keys" / "signing-key.pub"


def package(*arguments: object):
    return CliRunner().invoke(app, ["package", *map(str, arguments)])


@pytest.mark.req("H1")
@pytest.mark.req("H10")
def test_a_package_holds_the_bundle_and_how_to_serve_it(bundle, tmp_path) -> None:
    folder, key = bundle
    out = tmp_path / "adapter.tar"
    done = package(folder, "--key", key, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    with tarfile.open(out) as tar:
        tar.extractall(tmp_path / "elsewhere", filter="data")
    text = (tmp_path / "elsewhere" / "rollout.json").read_text()
    told = RolloutPackage.model_validate_json(text)
    assert (told.adapter_id, told.deployment, told.rollback, told.rank) == (
        "SmolLM2-135M-Instruct-tool_calls-v1",
        "assistant",
        "base",
        4,
    )
    assert [stage.percent for stage in told.policy.stages] == [1, 10, 50, 100]
    assert told.monitoring["task_success"] == 0.9
    found = verify_bundle(tmp_path / "elsewhere" / "bundle", load_ring(key))
    assert (found.ok, found.state) == (True, "promoted")
    assert set(told.files) | {"chain"} == {link.name for link in found.links}
    first = out.read_bytes()
    assert package(folder, "--key", key, "--out", out).exit_code == 0
    assert out.read_bytes() == first


@pytest.mark.req("H5")
@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("--max-rank", 3, "rank 4, the engine takes 3"),
        ("--max-bytes", 10, "bytes of weights, the engine has 10"),
    ],
)
def test_an_engine_that_cannot_hold_the_adapter_gets_no_package(
    bundle, tmp_path, limit, value, says
) -> None:
    folder, key = bundle
    out = tmp_path / "adapter.tar"
    refused = package(folder, "--key", key, "--out", out, limit, value)
    assert refused.exit_code == 2
    assert says in refused.stderr
    assert not out.exists()
    assert package(folder, "--key", key, "--out", out, "--max-rank", 4).exit_code == 0


def test_what_does_not_verify_is_not_packed(bundle, tmp_path) -> None:
    folder, key = bundle
    (folder / "README.md").write_text("another story")
    refused = package(folder, "--key", key, "--out", tmp_path / "x.tar")
    assert refused.exit_code == 2
    assert "README.md" in refused.stderr


def test_the_golden_sample_is_what_the_registry_signs(bundle, tmp_path) -> None:
    sample = Path(__file__).parents[2] / "contracts" / "samples" / "rollout-package.json"
    folder, key = bundle
    done = package(folder, "--key", key, "--out", tmp_path / "x.tar", "--json")
    told = json.loads(done.stdout)
    told.pop("file")
    assert told.keys() == json.loads(sample.read_text()).keys()

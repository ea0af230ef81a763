"""deploy/kubernetes against the code and against the published schemas of Kubernetes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.base import Service
from contracts.topology import CONSUMERS
from shared.messaging.login import BUS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DOCUMENTS: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((FOLDER / name).read_text())
]
OF_KUBERNETES = [d for d in DOCUMENTS if "keda.sh" not in d["apiVersion"]]
SCALED = [d for d in DOCUMENTS if d["kind"] == "ScaledObject"]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in DOCUMENTS if d["kind"] == kind}


@pytest.mark.req("P7")
@pytest.mark.parametrize("document", OF_KUBERNETES, ids=lambda d: f"{d['kind']}-{d['metadata']}")
def test_a_manifest_fits_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(document, validate.latest_version(), strict=True)


def test_the_written_manifests_are_those_of_the_topology() -> None:
    spec = importlib.util.spec_from_file_location("manifests", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    for name, documents in generator.manifests().items():
        assert (FOLDER / name).read_text() == generator.text(documents), "run generate.py"


@pytest.mark.req("P6")
@pytest.mark.parametrize("service", Service)
def test_a_service_is_unprivileged_and_holds_its_own_login_alone(service: Service) -> None:
    pod = of_kind("Deployment")[service]["spec"]["template"]["spec"]
    (box,) = pod["containers"]
    assert box["args"] == [f"services.{service}"]
    assert box["securityContext"]["readOnlyRootFilesystem"]
    assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsUser"] == 10001
    secrets = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
    assert secrets == [f"nats-{service}"]


@pytest.mark.req("P7")
def test_what_scales_does_so_on_the_lag_of_all_its_consumers() -> None:
    declared = {row.durable: row for row in CONSUMERS}
    deployments = of_kind("Deployment")
    for scaled in SCALED:
        name = scaled["spec"]["scaleTargetRef"]["name"]
        assert name in deployments
        watched = {}
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["type"] == "nats-jetstream"
            told = trigger["metadata"]
            assert told["account"] == BUS
            watched[told["consumer"]] = told["stream"]
        own = {d: row.stream for d, row in declared.items() if row.service == name}
        assert watched == own
    assert {"diagnosis", "curation", "training", "evaluation"} <= {
        scaled["metadata"]["name"] for scaled in SCALED
    }


@pytest.mark.req("P7")
def test_three_brokers_sync_every_write() -> None:
    config = of_kind("ConfigMap")["nats"]["data"]["nats.conf"]
    assert "sync_interval: always" in config
    assert of_kind("StatefulSet")["nats"]["spec"]["replicas"] == 3
    assert all(f"nats-{n}.nats:6222" in config for n in range(3))

"""Writes the manifests of this folder from the topology: `python deploy/kubernetes/generate.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from contracts.base import Service
from contracts.topology import CONSUMERS
from shared.messaging.login import BUS
from shared.waiting import BRIEFLY_AWAKE

HERE = Path(__file__).parent
NAMESPACE = "sluice"
MODELS = {Service.TRAINING, Service.EVALUATION, Service.SERVING}
"""Services of the image with torch."""
ONE_ONLY = {Service.REGISTRY, Service.MONITORING, Service.CONSOLE, Service.SERVING}
"""Not scaled by lag: they hold a window or a projection, or follow requests and not messages."""
LARGEST = 4
LAG = "4"
PORTS = {Service.SERVING: 8080, Service.CONSOLE: 8081}
Json = dict[str, Any]


def deployment(service: Service) -> Json:
    """One service: unprivileged, with its own login alone."""
    image = "sluiceway-models" if service in MODELS else "sluiceway-light"
    labels = {"app.kubernetes.io/name": str(service), "app.kubernetes.io/part-of": "sluice"}
    memory = "8Gi" if service in MODELS else "1Gi"
    container: Json = {
        "name": str(service),
        "image": f"{image}:local",
        "args": [f"services.{service}"],
        "envFrom": [{"configMapRef": {"name": "sluice"}}],
        "env": [{"name": "SLUICE_NATS_CREDENTIALS", "value": "/run/login/login"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "100m", "memory": memory}, "limits": {"memory": memory}},
        "livenessProbe": {
            "exec": {"command": ["python", "-m", "services.cli.supervision.health", str(service)]},
            "initialDelaySeconds": 60,
            "periodSeconds": 15,
            "timeoutSeconds": 10,
            "failureThreshold": 4,
        },
        "volumeMounts": [
            {"name": "home", "mountPath": "/var/lib/sluice"},
            {"name": "login", "mountPath": "/run/login", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    if service == Service.SERVING:
        container["env"] += [{"name": k, "value": v} for k, v in BRIEFLY_AWAKE.items()]
    if service in PORTS:
        container["ports"] = [{"containerPort": PORTS[service]}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": str(service), "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [
                        {"name": "home", "persistentVolumeClaim": {"claimName": "home"}},
                        {"name": "login", "secret": {"secretName": f"nats-{service}"}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }


def scaling(service: Service) -> Json:
    """KEDA: more replicas while any consumer of the service lags, down to one when none does."""
    rows = [row for row in CONSUMERS if row.service == service]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": str(service), "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"name": str(service)},
            "minReplicaCount": 1,
            "maxReplicaCount": LARGEST,
            "triggers": [
                {
                    "type": "nats-jetstream",
                    "metadata": {
                        "natsServerMonitoringEndpoint": f"nats.{NAMESPACE}.svc:8222",
                        "account": BUS,
                        "stream": row.stream,
                        "consumer": row.durable,
                        "lagThreshold": LAG,
                    },
                }
                for row in rows
            ],
        },
    }


def entrance(service: Service) -> Json:
    """The address inside the cluster of a service that answers HTTP."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": str(service), "namespace": NAMESPACE},
        "spec": {
            "selector": {"app.kubernetes.io/name": str(service)},
            "ports": [{"port": PORTS[service], "targetPort": PORTS[service]}],
        },
    }


def manifests() -> dict[str, list[Json]]:
    """File name → documents."""
    scaled = [service for service in Service if service not in ONE_ONLY]
    return {
        "services.yaml": [
            *(deployment(service) for service in Service),
            *(entrance(service) for service in PORTS),
        ],
        "scaling.yaml": [scaling(service) for service in scaled],
    }


def text(documents: list[Json]) -> str:
    head = "# Written by generate.py from contracts/topology.py.\n"
    return head + yaml.safe_dump_all(documents, sort_keys=False)


if __name__ == "__main__":
    for name, documents in manifests().items():
        (HERE / name).write_text(text(documents), encoding="utf-8")

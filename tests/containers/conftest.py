"""A Docker engine with the images of `make test-containers`, or a skip that says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

docker = pytest.importorskip("docker")

ROOT = Path(__file__).parents[2]
NATS_IMAGE = os.environ.get("NATS_IMAGE", "sluiceway-nats:local")
IMAGES = ("sluiceway-light:local", NATS_IMAGE, "sluiceway-postgres:local")
LIGHT = (
    "diagnosis",
    "curation",
    "synthesis",
    "registry",
    "rollout",
    "monitoring",
    "console",
)
"""Services of the `light` image."""
UP_WITHIN_S = 180


def connected():
    """The engine's client. Raises DockerException.

    Asked with a socket of our own first: the library leaves its own open if nobody answers.
    """
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(host.removeprefix("unix://"))
            except OSError as error:
                raise docker.errors.DockerException(f"{host}: {error}") from error
    return docker.from_env()


@pytest.fixture(scope="session")
def engine():
    """The engine's client."""
    mend = "`make test-containers` starts an engine and builds the images"
    try:
        client = connected()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers ({error}); {mend}")
    known = {tag for image in client.images.list() for tag in image.tags}
    if missing := [image for image in IMAGES if image not in known]:
        pytest.skip(f"no image {', '.join(missing)}; {mend}")
    return client


@dataclass(frozen=True)
class Compose:
    """A compose project of its own."""

    project: str
    nats_port: int

    @property
    def nats_url(self) -> str:
        """With the operator's login, which a service of the same volume can read."""
        login = self("exec", "-T", "console", "cat", "/var/lib/sluice/keys/nats/operator").strip()
        return f"nats://{login}@127.0.0.1:{self.nats_port}"

    def __call__(self, *words: str) -> str:
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        done = subprocess.run(
            [*program, "-f", str(ROOT / "deploy" / "compose.yaml"), *words],
            env={
                **os.environ,
                "COMPOSE_PROJECT_NAME": self.project,
                "NATS_IMAGE": NATS_IMAGE,
                "POSTGRES_IMAGE": "sluiceway-postgres:local",
                "POSTGRES_PASSWORD": "only-here",
                "SLUICE_CONSOLE_TOKEN": "only-here",
                "SLUICE_NATS_PORT": str(self.nats_port),
                "SLUICE_CONSOLE_PORT": str(free_port()),
                "SLUICE_OTLP_ENDPOINT": "",
            },
            capture_output=True,
            text=True,
            timeout=UP_WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def compose(engine) -> Iterator[Compose]:
    """The core of the stack, healthy: broker, database, and every service without a model."""
    stack = Compose(f"sluicetest{os.getpid()}", free_port())
    try:
        stack("up", "-d", "--no-build", "accounts", "nats", "postgres", "provision", *LIGHT)
        deadline = time.monotonic() + UP_WITHIN_S
        while unwell := [name for name in LIGHT if health(engine, stack, name) != "healthy"]:
            assert time.monotonic() < deadline, (unwell, stack("logs", "--tail", "20", *unwell))
            time.sleep(1)
        yield stack
    finally:
        stack("down", "-v", "-t", "5")


def container(engine, stack: Compose, service: str):
    (found,) = engine.containers.list(
        all=True,
        filters={
            "label": [
                f"com.docker.compose.project={stack.project}",
                f"com.docker.compose.service={service}",
            ]
        },
    )
    return found


def health(engine, stack: Compose, service: str) -> str:
    return str(container(engine, stack, service).attrs["State"]["Health"]["Status"])

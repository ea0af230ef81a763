"""The `models` image, where it was built: unprivileged, on a read-only root, it loads its services.

`MODELS=1 make test-containers` builds it, which takes several GB; without it this is skipped.
"""

from __future__ import annotations

import json

import pytest

from tests.containers.conftest import connected, docker

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(400)]

IMAGE = "sluiceway-models:local"
LOADS = """
import json, os, shutil, torch
import services.evaluation.__main__, services.serving.__main__, services.training.__main__
try:
    open('/opt/sluice/x', 'w')
except OSError as refused:
    tools = [bool(shutil.which(name)) for name in ('g++', 'bwrap')]
    print(json.dumps({'uid': os.getuid(), 'refused': refused.errno, 'tools': tools,
                      'sum': torch.ones(3).sum().item()}))
"""


@pytest.fixture(scope="module")
def client():
    try:
        found = connected()
        found.images.get(IMAGE)
    except docker.errors.DockerException as error:
        pytest.skip(f"no {IMAGE} ({error}); `MODELS=1 make test-containers` builds it")
    return found


def run(client, *command: str, entrypoint: str | None = None) -> str:
    said = client.containers.run(
        IMAGE,
        list(command),
        entrypoint=entrypoint,
        read_only=True,
        tmpfs={"/tmp": ""},
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        remove=True,
    )
    return bytes(said).decode()


def test_the_services_with_models_load_unprivileged_on_a_read_only_root(client) -> None:
    said = json.loads(run(client, "-c", LOADS, entrypoint="python").splitlines()[-1])
    assert said == {"uid": 10001, "refused": 30, "sum": 3.0, "tools": [True, True]}


def test_the_image_has_the_command_line(client) -> None:
    assert "submit" in run(client, "services.cli.main", "--help")

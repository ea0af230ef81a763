"""deploy/ against the code: what it starts, what it sets, what it may do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from contracts.base import Service
from services.console.settings import ConsoleSettings
from services.registry.settings import RegistrySettings
from services.serving.settings import ServingSettings
from services.training.settings import TrainingSettings
from shared.messaging.embedded import CONFIG

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
SETTINGS = (ConsoleSettings, RegistrySettings, ServingSettings, TrainingSettings)


@pytest.mark.req("P7")
@pytest.mark.parametrize("service", Service)
def test_every_service_runs_unprivileged_and_is_asked_how_it_is(service: Service) -> None:
    box = COMPOSE[service]
    assert box["command"] == [f"services.{service}"]
    assert box["healthcheck"]["test"][-1] == service
    assert box["user"] == "10001:10001"
    assert box["read_only"]
    assert box["cap_drop"] == ["ALL"]
    assert box["security_opt"] == ["no-new-privileges:true"]
    assert box["mem_limit"]
    assert box["pids_limit"]
    assert "provision" in box["depends_on"]
    assert box["environment"]["SLUICE_NATS_CREDENTIALS"].endswith(f"/keys/nats/{service}")


@pytest.mark.req("P7")
@pytest.mark.parametrize("name", COMPOSE)
def test_every_box_has_limits_a_read_only_root_and_no_new_privileges(name: str) -> None:
    box = COMPOSE[name]
    assert box["read_only"]
    assert box["mem_limit"]
    assert box["pids_limit"]
    assert "no-new-privileges:true" in box["security_opt"]
    assert box["restart"]


ONCE = {"accounts", "provision"}
SHELLLESS = {"otel-collector", "nats-exporter"}
"""Images with nothing in them that could ask."""


@pytest.mark.parametrize("name", sorted(set(COMPOSE) - ONCE - SHELLLESS))
def test_what_stays_up_is_asked_how_it_is(name: str) -> None:
    assert COMPOSE[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.req("P7")
def test_the_gpu_profile_asks_for_one_gpu_and_sees_the_models_alone() -> None:
    box = COMPOSE["vllm"]
    assert box["profiles"] == ["gpu"]
    (device,) = box["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    (models,) = box["volumes"]
    assert models.endswith("/models:ro")
    assert "ports" not in box  # only our services reach it
    assert not any("SLUICE" in name for name in box["environment"])


@pytest.mark.req("P7")
@pytest.mark.parametrize("profile", ["core", "observe", "gpu"])
def test_compose_itself_understands_every_profile(profile: str) -> None:
    if (program := compose_program()) is None:
        pytest.skip("no docker compose; `make test-containers` installs one")
    secrets = {"POSTGRES_PASSWORD": "x", "SLUICE_CONSOLE_TOKEN": "x"}
    words = [] if profile == "core" else ["--profile", profile]
    done = subprocess.run(
        [*program, "-f", str(DEPLOY / "compose.yaml"), *words, "config"],
        env={**os.environ, **secrets},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    understood = yaml.safe_load(done.stdout)["services"]
    assert {name for name, box in understood.items() if "profiles" not in box} <= set(COMPOSE)
    assert ("vllm" in understood) or profile != "gpu"


def compose_program() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        return ["docker", "compose"] if asked.returncode == 0 else None
    return None


def test_every_variable_is_a_setting_of_some_service() -> None:
    known = {
        (settings.model_config["env_prefix"] + name).upper()
        for settings in SETTINGS
        for name in settings.model_fields
    }
    told = {
        name for box in COMPOSE.values() for name in box.get("environment", {}) if "SLUICE" in name
    }
    assert told <= known
    assert "SLUICE_NATS_URL" in told


def test_nothing_listens_beyond_the_loopback() -> None:
    ports = [port for box in COMPOSE.values() for port in box.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for secret in ("POSTGRES_PASSWORD", "SLUICE_CONSOLE_TOKEN"):
        assert f"${{{secret}:-" not in text
        assert f"${{{secret}:?" in text


def test_every_mounted_file_is_there() -> None:
    mounts = [m for box in COMPOSE.values() for m in box.get("volumes", ()) if m.startswith("./")]
    assert mounts
    for mount in mounts:
        assert (DEPLOY / mount.split(":")[0]).exists(), mount


@pytest.mark.req("P6")
def test_the_broker_starts_with_accounts_made_for_it_and_nobody_else_has_them() -> None:
    assert 'include "accounts/accounts.conf"' in (DEPLOY / "nats" / "nats.conf").read_text()
    holders = {name for name, box in COMPOSE.items() if "broker:" in str(box.get("volumes"))}
    assert holders == {"accounts", "nats"}
    assert COMPOSE["accounts"]["command"][0] == "shared.messaging.accounts"
    assert COMPOSE["nats"]["depends_on"]["accounts"]["condition"].endswith("successfully")


@pytest.mark.req("P3")
def test_the_server_broker_is_as_careful_as_the_embedded_one() -> None:
    server = (DEPLOY / "nats" / "nats.conf").read_text()
    for line in ("sync_interval: always", "max_payload: 8MB", "max_memory_store: 256MB"):
        assert line in server
        assert line in CONFIG

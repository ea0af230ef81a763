"""The core of the compose stack, running: publish, and see it answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest

from contracts import subjects
from contracts.telemetry import Feedback
from tests.containers.conftest import LIGHT, container

SAMPLES = Path(__file__).parents[2] / "contracts" / "samples"

pytestmark = [pytest.mark.xdist_group("containers"), pytest.mark.timeout(400)]


@pytest.fixture
async def jetstream(compose):
    connection = await nats.connect(compose.nats_url)
    yield connection.jetstream()
    await connection.close()


async def message_on(jetstream, subject: str, stream: str) -> dict:
    subscription = await jetstream.subscribe(subject, stream=stream, ordered_consumer=True)
    async with asyncio.timeout(60):
        return json.loads((await subscription.next_msg(timeout=60)).data)


@pytest.mark.req("P7")
async def test_a_job_whose_data_nobody_has_is_rejected_with_a_mend(jetstream) -> None:
    job = json.loads((SAMPLES / "job.json").read_text())
    tenant = job["tenant"]
    await jetstream.publish(
        subjects.command(tenant, "boxed", "submit"), json.dumps(job).encode(), stream="JOBS"
    )
    fact = await message_on(jetstream, f"{subjects.run_log(tenant, 'boxed')}", "RUN")
    assert fact["problems"]
    assert all(problem["mend"] for problem in fact["problems"])


@pytest.mark.req("M12")
async def test_a_reported_incident_becomes_an_alert_and_a_withdrawal(jetstream) -> None:
    incident = Feedback(
        request_id="r1",
        tenant="acme",
        deployment="boxed",
        model="tiny-v1",
        run="boxed-1",
        kind="safety_incident",
        at=1.0,
    )
    await jetstream.publish(
        subjects.feedback("acme", "boxed"), incident.model_dump_json().encode(), stream="TELEMETRY"
    )
    alert = await message_on(jetstream, subjects.alert("acme", "boxed", "*"), "ALERTS")
    assert (alert["metric"], alert["taken"]) == ("safety_incidents", "withdraw")
    command = await message_on(jetstream, subjects.command("acme", "boxed-1", "withdraw"), "JOBS")
    assert command["kind"] == "safety_override"


@pytest.mark.req("R6")
def test_the_registry_keeps_its_tables_in_postgresql(compose) -> None:
    ask = "PGPASSWORD=$POSTGRES_PASSWORD psql -U sluice -c '\\dt'"
    tables = compose("exec", "-T", "postgres", "sh", "-c", ask)
    assert "alembic_version" in tables
    assert "adapters" in tables


@pytest.mark.parametrize("service", LIGHT)
def test_a_service_is_not_root_and_cannot_write_its_own_image(engine, compose, service) -> None:
    box = container(engine, compose, service)
    assert box.exec_run(["id", "-u"]).output.strip() == b"10001"
    assert box.exec_run(["touch", "/opt/sluice/x"]).exit_code != 0
    assert (
        box.exec_run(["sh", "-c", "grep CapEff /proc/self/status"]).output.split()[1] == b"0" * 16
    )
    assert box.exec_run(["python", "-c", "import torch"]).exit_code != 0

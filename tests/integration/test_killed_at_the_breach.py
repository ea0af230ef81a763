"""A live rollout does harm, and a service dies by kill -9 at that moment: the base answers in time.

Four services run as processes of their own. The harm is a confirmed safety incident, for that goes
through all of them: serving takes the report, rollout ends the rollout, monitoring raises the alert
and has the adapter withdrawn, and the registry signs and remembers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nats
import pytest
from nats.js import JetStreamContext

from benchmarks.candidates import IN_TIME_REQUESTS, IN_TIME_S
from contracts import subjects
from contracts.alerts import Alert
from contracts.base import Service
from contracts.job import CanaryStage, RolloutPolicy
from contracts.registry import AdapterWithdrawn, VerdictAttested
from contracts.rollout import RolledBack
from contracts.run import Run
from contracts.subjects import RunRef
from services.registry.store import RegistryStore
from shared.artifacts import ArtifactStore
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.tail import history
from shared.settings import Settings
from shared.signing import SigningKey
from shared.testing.adapters import store_adapter, store_dataset
from shared.testing.runs import gated_events, healthy_job
from shared.testing.tiny_model import build_tiny_llama
from tests.integration.scripted_serving import MODEL

VICTIMS = (Service.SERVING, Service.REGISTRY, Service.MONITORING, Service.ROLLOUT)
BACK_IN_A_ROW = 20


@dataclass(kw_only=True)
class Fleet:
    """The broker and the four services."""

    settings: Settings
    port: int = field(default_factory=free_port)
    running: dict[Service, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, service: Service) -> None:
        own = {
            "SLUICE_HOME": str(self.settings.home),
            "SLUICE_NATS_URL": self.settings.nats_url,
            "OMP_NUM_THREADS": "1",
        }
        command = ["-m", f"services.{service}"]
        if service == Service.SERVING:
            command = ["-m", "tests.integration.scripted_serving", str(self.port)]
        self.running[service] = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **own}, stderr=subprocess.DEVNULL
        )

    def kill_9(self, service: Service) -> None:
        self.running[service].kill()
        self.running[service].wait()

    def history(self, adapter_id: str) -> Counter[str]:
        store = RegistryStore(f"sqlite:///{self.settings.home / 'registry.db'}")
        try:
            return Counter(row.what for row in store.read(lambda b: b.history(adapter_id)))
        finally:
            store.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    server = EmbeddedNats(folder / "nats", port=free_port())

    async def begin() -> None:
        await server.start()
        connection = await nats.connect(server.url)
        await provision(connection.jetstream())
        await connection.close()

    asyncio.run(begin())
    settings = Settings(home=folder / "home", nats_url=server.url)
    build_tiny_llama(settings.home / MODEL)
    SigningKey.load_or_create(settings.home / "keys" / "registry")
    made = Fleet(settings=settings)
    for service in VICTIMS:
        made.start(service)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()
    server.stop()


@asynccontextmanager
async def users(fleet: Fleet) -> AsyncIterator[tuple[httpx.AsyncClient, JetStreamContext]]:
    connection = await nats.connect(fleet.settings.nats_url)
    headers = {"Authorization": "Bearer sk-users"}
    url = f"http://127.0.0.1:{fleet.port}"
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
            yield client, connection.jetstream()
    finally:
        await connection.close()


async def begin(fleet: Fleet, log: RunLog, ref: RunRef) -> None:
    """A candidate that has passed its gates, on a deployment of its run's name."""
    artifacts = ArtifactStore(fleet.settings.artifacts_url)
    stages = (CanaryStage(percent=50, outcomes=5000), CanaryStage(percent=100, outcomes=20))
    policy = RolloutPolicy(deployment=ref.run, shadow_outcomes=5, stages=stages)
    job = healthy_job().model_copy(update={"rollout": policy})
    dataset = store_dataset(artifacts)
    trained = store_adapter(artifacts, dataset, seed=sum(ref.run.encode()))
    events = gated_events(job=job, trained=trained, dataset=dataset)
    for number, event in enumerate(events):
        await log.append(ref, event, cause=f"gates-{number}")


@pytest.mark.req("G9")
@pytest.mark.req("R5")
@pytest.mark.req("P3")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_the_base_answers_in_time_whoever_dies_when_the_harm_begins(
    fleet: Fleet, victim: Service
) -> None:
    ref, numbers = RunRef("acme", f"harm-{victim}"), iter(range(1_000_000))
    async with users(fleet) as (client, jetstream):
        log = RunLog(jetstream)
        await begin(fleet, log, ref)

        async def ask() -> tuple[str, str]:
            """(request id, who answered); nobody while serving is away."""
            request = f"{ref.run}-{next(numbers)}"
            body = {"model": ref.run, "messages": [{"role": "user", "content": request}]}
            try:
                answer = await client.post(
                    "/v1/chat/completions", json=body, headers={"X-Request-Id": request}
                )
            except httpx.TransportError:
                return request, ""
            answered = answer.status_code == 200
            return request, answer.headers["X-Sluice-Model"] if answered else ""

        async def report(request: str, model: str) -> bool:
            said = {"request_id": request, "model": ref.run, "kind": "safety_incident"}
            try:
                answer = await client.post("/v1/feedback", json={**said, "answered_by": model})
            except httpx.TransportError:
                return False
            return answer.status_code < 300

        began = last = 0.0
        harmed, in_a_row, killed = 0, 0, False
        while in_a_row < BACK_IN_A_ROW:
            run = await log.load(ref)
            answers = await asyncio.gather(*(ask() for _ in range(4)))
            candidate = run.registered.adapter_id if run.registered else None
            for request, model in answers:
                if not candidate or model != candidate:
                    in_a_row += bool(began) and model == "base"
                    continue
                in_a_row, last = 0, time.monotonic()
                began = began or last
                harmed += 1
                if await report(request, model) and not killed:
                    fleet.kill_9(victim)
                    fleet.start(victim)
                    killed = True
            await asyncio.sleep(0.05)
        assert killed
        assert harmed <= IN_TIME_REQUESTS or last - began <= IN_TIME_S, (harmed, last - began)
        await told_truly(fleet, await ended(log, ref), jetstream)
        assert {model for _, model in [await ask() for _ in range(10)]} == {"base"}


async def ended(log: RunLog, ref: RunRef) -> Run:
    """The run, once monitoring has had its adapter withdrawn."""
    while (run := await log.load(ref)).status != "withdrawn":
        await asyncio.sleep(0.1)
    return run


async def told_truly(fleet: Fleet, run: Run, jetstream: JetStreamContext) -> None:
    """Every fact is there once: links without a gap, one end, one alert, one line of history."""
    assert run.registered is not None
    facts = Counter(type(record.event) for record in run.log)
    assert (facts[AdapterWithdrawn], facts[RolledBack] <= 1) == (1, True)
    chain = [r.event for r in run.log if isinstance(r.event, VerdictAttested)]
    assert [link.index for link in chain] == list(range(len(chain)))
    assert [link.name for link in chain[:6]] == ["G2", "G1", "G3", "G4", "G5", "G8"]
    said = subjects.alert("acme", run.ref.run, "safety_incidents")
    alerts: list[Alert] = []
    while not alerts:  # the withdrawal is asked for first, so that the alert can say so
        messages = await history(jetstream, "ALERTS", said)
        alerts = [Alert.model_validate_json(message.data) for message in messages]
    assert [alert.state for alert in alerts][:1] == ["firing"]
    assert len({alert.id for alert in alerts}) == 1
    told = await asyncio.to_thread(fleet.history, run.registered.adapter_id)
    assert (told["registered"], told["withdrawn"], told["promoted"]) == (1, 1, 0)
    assert told["rolled_back"] <= facts[RolledBack]

"""Distillation jobs over a real nats-server: curation, synthesis and training."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import uvicorn

from contracts.base import Service, digest_of
from contracts.data import Message, parse_row
from contracts.diagnosis import MethodChoice, RunAccepted
from contracts.job import AdaptationJob
from contracts.training import Recipe
from services.curation import handlers as curation
from services.curation.desk import Desk
from services.synthesis.app import create_app as synthesis_app
from services.training.app import create_app as training_app
from services.training.settings import TrainingSettings
from shared.artifacts import ArtifactStore
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Steps
from shared.settings import Settings
from shared.testing.runs import REF, advised
from shared.testing.tiny_model import build_tiny_llama
from tests.integration.test_ladder import Base
from tests.training.test_distillation_examples import NothingPrivate, as_a_teacher, pinned
from tests.training.test_examples import job_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def teacher() -> Iterator[str]:
    """The URL of an OpenAI-compatible endpoint that reasons, and is wrong at times."""
    endpoint = Base()
    endpoint.answers = lambda body: as_a_teacher(
        [Message.model_validate(turn) for turn in body["messages"]], int(body.get("seed") or 0)
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(endpoint.app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join()


def taught(job: AdaptationJob, **teacher: str) -> AdaptationJob:
    """The job with another way to its teacher."""
    document = job.model_dump(mode="json", by_alias=True)
    document["method"]["distillation"]["teacher"] |= teacher
    return AdaptationJob.model_validate(document)


def curation_app(settings: Settings) -> App:
    """The service as it is, but for a detector of private data that has nothing to load."""
    bus = Bus(Service.CURATION, settings)
    steps = Steps(bus)
    desk = Desk(steps.artifacts, NothingPrivate(), settings.home / "curation")
    curation.register(steps, desk)
    return App(bus)


@pytest.mark.req("T1")
@pytest.mark.parametrize("name", ["logit_distillation", "reasoning_distillation"])
async def test_a_distillation_job_runs_over_the_bus_to_its_adapter(
    settings: Settings, tmp_path: Path, teacher: str, name: str
) -> None:
    store = ArtifactStore(settings.artifacts_url)
    job = pinned(job_of(name), store, build_tiny_llama(tmp_path / "tiny"))
    asks = name != "logit_distillation"
    way: dict[str, Any] = {"endpoint": {"model": "large", "url": teacher}}
    if not asks:
        way = {"checkpoint": str(build_tiny_llama(tmp_path / "teacher", seed=1))}
    job = taught(job, **way)
    choice = MethodChoice(method="distillation", reason="the job names it", rejected={})
    connection = await nats.connect(settings.nats_url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    log = RunLog(jetstream)
    own = TrainingSettings(**(settings.model_dump() | {"training_threads": 1}))
    apps = curation_app(settings), synthesis_app(settings), training_app(own)
    async with apps[0].running(), apps[1].running(), apps[2].running(), asyncio.timeout(300):
        await log.append(REF, RunAccepted(job=job, job_digest=digest_of(b"job")), cause="submit")
        await log.append(REF, advised().model_copy(update={"choice": choice}), cause="diagnosed")
        while not ((run := await log.load(REF)).trained or run.closed):
            await asyncio.sleep(0.1)
    await connection.close()
    services = [record.event.service for record in run.log]
    between = ["curation", "synthesis", "curation"] if asks else ["curation"]
    assert services == ["diagnosis", "diagnosis", *between, "training", "training"]
    assert run.trained is not None
    assert run.dataset is not None
    recipe = Recipe.model_validate_json(store.get(run.trained.recipe))
    assert recipe.method == name
    assert run.trained.steps == 4
    if asks:
        rows = [parse_row(line) for line in store.get(run.dataset.train).splitlines()]
        assert run.trained.metrics["teacher_rows"] == len(rows)
        assert all(row.origin is not None for row in rows)
    else:
        assert run.trained.metrics["kl"] > 0

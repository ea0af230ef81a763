"""The registry dies by kill -9 between two links: none is missing afterwards, none doubled."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from contracts.registry import VerdictAttested
from contracts.run import Run
from services.registry.settings import RegistrySettings
from shared.artifacts import ArtifactStore
from shared.messaging.runlog import RunLog
from shared.settings import Settings
from shared.signing import SigningKey, open_envelope
from shared.testing.adapters import store_adapter, store_dataset
from shared.testing.runs import REF, gated_events, rollout_events


@asynccontextmanager
async def registry(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """The registry as a process; it ends by kill -9."""
    own = {"SLUICE_HOME": str(settings.home), "SLUICE_NATS_URL": settings.nats_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.registry"),
        env={**os.environ, **own},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def links(run: Run) -> list[VerdictAttested]:
    return [r.event for r in run.log if isinstance(r.event, VerdictAttested)]


async def until_links(log: RunLog, count: int) -> Run:
    async with asyncio.timeout(60):
        while len(links(run := await log.load(REF))) < count:
            await asyncio.sleep(0.002)
    return run


@pytest.mark.req("R4")
@pytest.mark.req("P3")
async def test_a_registry_killed_between_links_leaves_no_gap_and_no_double(
    jetstream, settings
) -> None:
    artifacts, log = ArtifactStore(settings.artifacts_url), RunLog(jetstream)
    key = SigningKey.load_or_create(RegistrySettings(**settings.model_dump()).key_folder)
    dataset = store_dataset(artifacts)
    trained = store_adapter(artifacts, dataset)
    for number, event in enumerate(gated_events(trained=trained, dataset=dataset)):
        await log.append(REF, event, cause=f"gates-{number}")
    async with registry(settings):
        await until_links(log, 1)  # killed with four to go
    async with registry(settings):
        run = await until_links(log, 5)
        assert run.registered is not None
        started, judged, *_ = rollout_events(run.registered.adapter_id)
        await log.append(REF, started, cause="registered")
    failed = judged.model_copy(update={"verdict": "failed"})
    await log.append(REF, failed, cause="watch")  # nobody is there to sign it
    async with registry(settings):
        run = await until_links(log, 6)
    found = links(run)
    assert [link.name for link in found] == ["G2", "G1", "G3", "G4", "G5", "G8"]
    assert [link.index for link in found] == list(range(6))
    previous = None
    for link in found:
        statement = open_envelope(artifacts.get(link.attestation), [key.public])
        assert statement.predicate["previous"] == previous
        previous = link.payload
        assert previous == statement.payload

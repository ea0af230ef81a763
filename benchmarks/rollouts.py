"""Injected regressions and healthy candidates, rolled out on real requests to their end.

`python benchmarks/rollouts.py [--healthy 50] [--folder .sluice/bench]`.

Users ask serving's HTTP API; its router, shadow, execution boundary and telemetry, the registry and
rollout services and a nats-server are the real ones, and so is every signature. Only the model
behind the engine port is a script: it answers as each candidate's behaviour says, from a seed. A
regression is in time if the candidate answered, or mirrored, at most 200 requests from its onset to
the rollback's effect, or if that took at most 30 s.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx
import nats
from nats.js import JetStreamContext
from transformers import AutoTokenizer

from benchmarks.candidates import HEALTHY, Candidate, Scripted, injected
from contracts.job import AdaptationJob, CanaryStage, RolloutPolicy
from contracts.subjects import RunRef
from services.registry.app import create_app as create_registry
from services.registry.settings import RegistrySettings
from services.rollout.app import create_app as create_rollout
from services.serving.bus import Projection, TelemetrySink
from services.serving.directory import Directory
from services.serving.http.app import create_app as create_http
from services.serving.keys import Keys
from services.serving.trust import Trust
from shared.artifacts import ArtifactStore
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.settings import Settings
from shared.signing import SigningKey
from shared.testing.adapters import store_adapter, store_dataset
from shared.testing.runs import gated_events, healthy_job
from shared.testing.tiny_model import build_tiny_llama

TENANT = "acme"
RUN_TIMEOUT_S = 240.0
PACE_S = 0.1
"""From one round of four requests to the next, at least: everything shares one event loop, and
users who leave it no time would measure how long the judge waits for its turn."""
TOOL = {"type": "function", "function": {"name": "switch", "parameters": {"type": "object"}}}
LADDER = tuple(CanaryStage(percent=p, outcomes=n) for p, n in ((10, 5), (50, 20), (100, 20)))


@dataclass(slots=True, kw_only=True)
class World:
    """A platform in one process, but for its broker; registry and rollout may have their own."""

    settings: Settings
    server: EmbeddedNats
    jetstream: JetStreamContext
    engine: Scripted
    directory: Directory
    artifacts: ArtifactStore
    users: httpx.AsyncClient
    log: RunLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = RunLog(self.jetstream)

    def job(self, candidate: Candidate) -> AdaptationJob:
        policy = RolloutPolicy(deployment=candidate.name, shadow_outcomes=30, stages=LADDER)
        return healthy_job().model_copy(update={"rollout": policy})

    async def register(self, candidate: Candidate) -> RunRef:
        """The candidate passes its gates; the registry does the rest."""
        ref = RunRef(TENANT, candidate.name)
        dataset = store_dataset(self.artifacts)
        trained = store_adapter(self.artifacts, dataset, seed=candidate.seed)
        self.engine.candidates[trained.adapter] = candidate
        for number, event in enumerate(
            gated_events(job=self.job(candidate), trained=trained, dataset=dataset)
        ):
            await self.log.append(ref, event, cause=f"gates-{number}")
        return ref

    async def roll_out(self, candidate: Candidate) -> Candidate:
        """Users ask the candidate's deployment until its rollout has ended."""
        ref = await self.register(candidate)
        number, draw = 0, random.Random(candidate.seed)
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while True:
                run = candidate.run = await self.log.load(ref)
                if run.closed:
                    break
                if run.stage is None:
                    await asyncio.sleep(0.02)
                    continue
                if run.stage.stage == candidate.onset and not candidate.harming:
                    candidate.harming, candidate.began = candidate.behaviour != HEALTHY, time.time()
                await asyncio.gather(
                    asyncio.sleep(PACE_S),
                    *(self.ask(candidate, number + i, draw.random() < 0.5) for i in range(4)),
                )
                number += 4
        await self._until_routed(candidate)
        return candidate

    async def _until_routed(self, candidate: Candidate) -> None:
        """Until serving acts on the end: that is when a rollback has taken effect."""
        rolled_back = candidate.rolled_back
        while True:
            known = self.directory.deployment(TENANT, candidate.name)
            if known and known.candidate is None and (known.stable == "base") == rolled_back:
                break
            await asyncio.sleep(0.01)
        if candidate.harming:
            candidate.took_s = time.time() - candidate.began

    async def ask(self, candidate: Candidate, number: int, call: bool) -> None:
        """One user's request, and what the user makes of its answer."""
        body: dict[str, Any] = {
            "model": candidate.name,
            "messages": [{"role": "user", "content": f"Switch the light on, please ({number})."}],
            "max_tokens": 64 if call else 65,
        }
        if call:
            body["tools"] = [TOOL]
        request_id = f"{candidate.name}-{number}"
        answer = await self.users.post(
            "/v1/chat/completions", json=body, headers={"X-Request-Id": request_id}
        )
        model = answer.headers.get("X-Sluice-Model", "base")
        behaviour = candidate.now if model != "base" else HEALTHY
        draw = random.Random(request_id)
        for kind, share in (
            ("override", behaviour.overridden),
            ("safety_incident", behaviour.incidents),
        ):
            if answer.status_code == 200 and draw.random() < share:
                said = {"request_id": request_id, "model": candidate.name, "kind": kind}
                await self.users.post("/v1/feedback", json={**said, "answered_by": model})


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Everything but registry and rollout."""
    async with AsyncExitStack() as open_things:
        yield await _opened(folder, open_things)


async def _opened(folder: Path, open_things: AsyncExitStack) -> World:
    server = EmbeddedNats(folder / "nats", port=free_port())
    open_things.callback(server.stop)
    await server.start()
    connection = await nats.connect(server.url)
    open_things.push_async_callback(connection.close)
    jetstream = connection.jetstream(timeout=30)
    await provision(jetstream)
    settings = Settings(home=folder / "home", nats_url=server.url)
    artifacts = ArtifactStore(settings.artifacts_url)
    keys = RegistrySettings(**settings.model_dump()).key_folder
    SigningKey.load_or_create(keys)
    engine = Scripted(AutoTokenizer.from_pretrained(build_tiny_llama(folder / "tiny")))
    directory = Directory()
    projection = Projection(
        directory, lambda: jetstream, Trust(artifacts, keys / "signing-key.pub")
    )
    sink = TelemetrySink(lambda: jetstream)
    app = create_http(
        engine=lambda: engine,  # type: ignore[arg-type, return-value]
        directory=directory,
        keys=Keys("sk-service", lambda: {TENANT: "sk-users"}),
        sink=sink,
        folders=Path,
    )
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": "Bearer sk-users"}
    await open_things.enter_async_context(projection.running())
    await open_things.enter_async_context(sink.running())
    users = await open_things.enter_async_context(
        httpx.AsyncClient(
            transport=transport, base_url="http://serving", headers=headers, timeout=60
        )
    )
    return World(
        settings=settings,
        server=server,
        jetstream=jetstream,
        engine=engine,
        directory=directory,
        artifacts=artifacts,
        users=users,
    )


async def main(healthy: int, folder: Path) -> int:
    async with world(folder) as made, AsyncExitStack() as services:
        for create in (create_registry, create_rollout):
            await services.enter_async_context(create(made.settings).running())
        began = time.monotonic()
        harmful = injected()
        good = [
            Candidate(name=f"healthy-{number}", behaviour=HEALTHY, seed=100 + number)
            for number in range(healthy)
        ]
        for batch in _by(5, [*harmful, *good]):
            for done in await asyncio.gather(*(made.roll_out(one) for one in batch)):
                print(done.line, flush=True)
    in_time = sum(one.in_time for one in harmful)
    lost = sum(one.rolled_back for one in good)
    seconds = time.monotonic() - began
    print(f"{in_time} of {len(harmful)} injected regressions were rolled back in time")
    print(f"{lost} of {len(good)} healthy candidates were rolled back ({seconds:.0f} s in all)")
    return 0 if in_time == len(harmful) and not lost else 1


def _by(size: int, candidates: list[Candidate]) -> list[list[Candidate]]:
    return [candidates[i : i + size] for i in range(0, len(candidates), size)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--healthy", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where its data lies")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        sys.exit(asyncio.run(main(options.healthy, Path(place))))

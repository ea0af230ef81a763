"""Tenants who want what is another's: over HTTP, by jobs, and over the bus. Nothing is served."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import nats.errors
import pytest
from nats.js.errors import Error as JetStreamError

from contracts.diagnosis import RunRejected
from contracts.subjects import RunRef
from contracts.topology import STREAMS
from services.diagnosis.intake import Intake
from services.serving.directory import Directory
from services.serving.http.app import create_app
from services.serving.keys import Keys
from shared.artifacts import ArtifactStore
from shared.messaging.accounts import OPERATOR, tenant_user
from tests.chaos.tenants import (
    SERVICE_SECRET,
    SHARED,
    TENANTS,
    Outcomes,
    TellingEngine,
    World,
    client_key,
)
from tests.diagnosis.jobs import job
from tests.integration.secured import Secured, secured_broker

pytestmark = [pytest.mark.timeout(3600), pytest.mark.req("V5")]

AT_ONCE = 40
HELLO = [{"role": "user", "content": "hello"}]
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Thief:
    """Asks as one tenant for what is another's, one random way at a time."""

    def __init__(self, world: World, client: httpx.AsyncClient, rng: random.Random) -> None:
        self._world, self._client, self._rng = world, client, rng
        self.statuses: Counter[str] = Counter()
        self.served: list[tuple[object, ...]] = []

    async def attempt(self) -> None:
        me, victim = self._rng.sample(TENANTS, 2)
        way = self._rng.choice(WAYS)
        answer = await way(self, me, victim)
        self.statuses[f"{way.__name__} {answer.status_code}"] += 1
        foreign = {
            owner
            for found in DIGEST.findall(answer.text)
            if (owner := self._world.owner.get(found)) not in (None, me)
        }
        model = answer.headers.get("x-sluice-model", "")
        if answer.is_success and (foreign or f"{victim}-" in model):
            self.served.append((way.__name__, me, victim, answer.text))

    def theirs(self, victim: str) -> str:
        return self._rng.choice(self._world.names_of(victim))

    def key(self, me: str) -> str:
        return self._rng.choice([client_key(me), f"{SERVICE_SECRET}.{me}"])

    async def ask(self, model: str, key: str, **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {key}", **headers}
        if self._rng.random() < 0.5:
            body: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 1}
            return await self._client.post("/v1/chat/completions", json=body, headers=given)
        body = {"model": model, "prompt": [5, 6], "max_tokens": 1}
        return await self._client.post("/v1/completions", json=body, headers=given)

    async def by_name(self, me: str, victim: str) -> httpx.Response:
        return await self.ask(self.theirs(victim), self.key(me))

    async def by_a_bent_name(self, me: str, victim: str) -> httpx.Response:
        name = self.theirs(victim)
        bent = self._rng.choice(
            [
                name.upper(), f" {name}", f"{name} ", f"{name}\0", f"../{victim}/{name}",
                f"{victim}/{name}", f"{victim}.{name}", f"{me}/../{victim}/{name}",
                name.replace("-", "\u2010"), f"candidate:{name}", f"candidate:candidate:{name}",
            ]
        )  # fmt: skip
        return await self.ask(bent, self.key(me))

    async def by_the_name_we_share(self, me: str, victim: str) -> httpx.Response:
        """A request of our own, to the name both have, while either's adapter changes."""
        conversation = str(self._rng.randrange(100))
        return await self.ask(SHARED, self.key(me), **{"x-conversation-id": conversation})

    async def by_our_own_name(self, me: str, victim: str) -> httpx.Response:
        return await self.ask(f"{me}-bot", self.key(me))

    async def by_a_header(self, me: str, victim: str) -> httpx.Response:
        name = self._rng.choice(["x-tenant", "x-sluice-tenant", "x-forwarded-user", "x-request-id"])
        return await self.ask(self.theirs(victim), self.key(me), **{name: victim})

    async def by_a_forged_key(self, me: str, victim: str) -> httpx.Response:
        mine = client_key(me)
        key = self._rng.choice(
            [
                client_key(victim).upper(), client_key(victim)[:-1], f"{client_key(victim)}x",
                f"{mine}.{victim}", f"{SERVICE_SECRET}{victim}", f"{SERVICE_SECRET[:-1]}.{victim}",
                f".{victim}", f"{SERVICE_SECRET}.{me}.{victim}", SERVICE_SECRET, "",
                f"{SERVICE_SECRET}.{victim.upper()}", f"{SERVICE_SECRET}.*", victim,
            ]
        )  # fmt: skip
        return await self.ask(self.theirs(victim), key)

    async def by_feedback(self, me: str, victim: str) -> httpx.Response:
        about = self._rng.choice(
            [
                {"model": f"{victim}-bot"},
                {"model": self.theirs(victim)},
                {"model": SHARED, "answered_by": self.theirs(victim)},
            ]
        )
        return await self._client.post(
            "/v1/feedback",
            json={"request_id": "r", "kind": "safety_incident", **about},
            headers={"authorization": f"Bearer {self.key(me)}"},
        )

    async def by_the_list(self, me: str, victim: str) -> httpx.Response:
        answer = await self._client.get(
            "/v1/models", headers={"authorization": f"Bearer {self.key(me)}"}
        )
        listed = {model["id"] for model in answer.json()["data"]}
        if foreign := listed & {f"{t}-bot" for t in TENANTS if t != me}:
            self.served.append(("by_the_list", me, foreign))
        return answer

    async def by_a_fingerprint(self, me: str, victim: str) -> httpx.Response:
        return await self._client.post(
            "/v1/internal/fingerprint",
            json={"model": self.theirs(victim), "messages": HELLO, "token_ids": [5]},
            headers={"authorization": f"Bearer {self.key(me)}"},
        )


Way = Callable[[Thief, str, str], Any]
WAYS: tuple[Way, ...] = (
    Thief.by_name,
    Thief.by_a_bent_name,
    Thief.by_the_name_we_share,
    Thief.by_our_own_name,
    Thief.by_a_header,
    Thief.by_a_forged_key,
    Thief.by_feedback,
    Thief.by_the_list,
    Thief.by_a_fingerprint,
)
REFUSED = ("by_name", "by_a_bent_name", "by_a_header", "by_a_forged_key", "by_a_fingerprint")
"""Ways that must never succeed, whatever the answer says."""


async def test_no_request_is_answered_with_what_is_another_tenants(seed: int, long: bool) -> None:
    rng, attempts = random.Random(seed), 100_000 if long else 2_000
    world, outcomes = World(rng, Directory(base_label="tiny")), Outcomes()
    engine = TellingEngine()
    app = create_app(
        engine=lambda: engine,
        directory=world.directory,
        keys=Keys(SERVICE_SECRET, lambda: {tenant: client_key(tenant) for tenant in TENANTS}),
        sink=outcomes,
        folders=lambda found: Path("/adapters") / found.removeprefix("sha256:"),
        catch_up=world.catch_up,
    )
    for _ in range(30):
        world.swap()
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://serving") as client:
        thief = Thief(world, client, rng)
        for _ in range(attempts // AT_ONCE):
            asked = [asyncio.create_task(thief.attempt()) for _ in range(AT_ONCE)]
            await asyncio.sleep(0)
            world.swap()
            world.lie()
            await asyncio.gather(*asked)
    print(f"{thief.statuses.total()} attempts: {dict(thief.statuses)}", flush=True)
    assert thief.served == []
    assert thief.statuses.total() == attempts // AT_ONCE * AT_ONCE
    succeeded = {
        name for name, _, code in (s.partition(" ") for s in thief.statuses) if code == "200"
    }
    assert {"by_the_name_we_share", "by_our_own_name", "by_the_list"} <= succeeded
    assert not any(f"{way} 200" in thief.statuses for way in REFUSED)
    assert not any(" 5" in status for status in thief.statuses)
    for said in outcomes.said:  # nobody's report speaks of another's adapter
        assert world.ids.get(said.model, said.tenant) == said.tenant
    assert len({world.owner[info.digest] for info in engine.adapters()}) > 1  # caches were shared


def _wishes(home: Path, victim: Path, rng: random.Random) -> str:
    """Something of another's, as a job's data."""
    held = "sha256:" + rng.randbytes(32).hex()
    return rng.choice(
        [
            (home / "keys" / "client.json").as_uri(),
            (home / "artifacts" / "sha256" / "aa" / "bb").as_uri(),
            f"{home.as_uri()}/models/../keys/client.json",
            str(home / "keys" / "client.json"),
            (victim / "link.jsonl").as_uri(),
            "file:///proc/self/environ",
            "file:///proc/self/fd/0",
            "file:///dev/zero",
            "file:///dev/stdin",
            held,
            f"{held}#../../keys",
            "sha256:../../keys/client.json",
            f"{home}/keys/./client.json",
            "keys/client.json",
            "http://127.0.0.1:4222/",
        ]
    )


def test_no_job_reads_keys_devices_or_what_it_cannot_name(
    tmp_path: Path, seed: int, long: bool
) -> None:
    rng, attempts = random.Random(seed), 5_000 if long else 200
    home, outside = tmp_path / "home", tmp_path / "outside"
    secret = "slk-globex-do-not-tell"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "client.json").write_text(json.dumps({"globex": secret}))
    (home / "artifacts" / "sha256" / "aa").mkdir(parents=True)
    (home / "artifacts" / "sha256" / "aa" / "bb").write_text(secret)
    outside.mkdir()
    (outside / "link.jsonl").symlink_to(home / "keys" / "client.json")
    store = ArtifactStore((home / "artifacts").as_uri())
    before = sorted(home.rglob("*"))
    intake = Intake(home, store, read_files=True)
    document = job().model_dump(mode="json", by_alias=True)
    for _ in range(attempts):
        wish = _wishes(home, outside, rng)
        document["data"][0]["uri"] = document["evaluation"]["dev"]["uri"] = wish
        fact = intake.consider(RunRef("demo", "r1"), json.dumps(document).encode())
        assert isinstance(fact, RunRejected), wish
        wheres = {problem.where for problem in fact.problems}
        assert "evaluation.dev.uri" in wheres or not wish.startswith(("file:", "/")), wish
        assert secret not in fact.model_dump_json()
    assert sorted(home.rglob("*")) == before  # nothing was copied into the store


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured_broker(tmp_path / "home") as secured:
        yield secured


@pytest.mark.req("P6")
async def test_nothing_of_a_tenants_runs_and_alerts_is_heard_or_said_by_another(
    secured: Secured, seed: int, long: bool
) -> None:
    rng, attempts = random.Random(seed), 5_000 if long else 200
    operator = await secured.enter(OPERATOR)
    thief = await secured.enter(tenant_user("acme"))
    js, own = operator.connection.jetstream(), thief.connection.jetstream(timeout=1)
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for subject in ("sluice.v1.*.globex.>", "sluice.v1.>", ">", "sluice.v1.run.globex.r1.*.*"):
        await thief.connection.subscribe(subject, cb=hear)
    streams = [row.name for row in STREAMS]
    before = {name: (await js.stream_info(name)).state.last_seq for name in streams}
    for number in range(attempts):
        run = f"r{rng.randrange(5)}"
        subject = rng.choice(
            [
                f"sluice.v1.job.globex.{run}.{rng.choice(['submit', 'cancel', 'approve'])}",
                f"sluice.v1.run.globex.{run}.registry.promoted",
                f"sluice.v1.run.acme.{run}.registry.promoted",
                f"sluice.v1.alert.globex.{run}.task_success",
                f"sluice.v1.telemetry.globex.{run}",
                f"sluice.v1.progress.globex.{run}.training",
                f"sluice.v1.dead.{rng.choice(['training', 'registry'])}",
                "$JS.API.STREAM.DELETE.RUN",
                "$JS.API.STREAM.PURGE.RUN",
                "$JS.bus.API.STREAM.MSG.GET.RUN",
                "$JS.API.CONSUMER.DURABLE.CREATE.RUN.registry-register",
            ]
        )
        await thief.connection.publish(subject, b"{}", reply=f"sluice.v1.job.globex.{run}.cancel")
        if number % 20 == 0:
            with suppress(JetStreamError, nats.errors.Error, TimeoutError):
                message = await own.get_msg(rng.choice(["RUN", "ALERTS"]), seq=number, direct=True)
                heard.append(str(message.subject))
    await thief.settled()
    after = {name: (await js.stream_info(name)).state.last_seq for name in streams}
    assert after == before
    for n in range(20):
        await js.publish(f"sluice.v1.run.globex.r{n}.curation.curated", b"{}", stream="RUN")
        await js.publish(f"sluice.v1.alert.globex.d{n}.m", b"{}", stream="ALERTS")
    await operator.settled()
    await thief.settled()
    assert [subject for subject in heard if ".globex." in subject] == []

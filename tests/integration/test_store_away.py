"""The artifact store goes away and comes back: no fact is lost, and none refused for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.testclient import TestClient

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, VerdictAttested
from contracts.rollout import RolledBack
from services.serving import belief, gauges
from services.serving.bus import Projection
from services.serving.directory import Directory, UnknownModel
from services.serving.http.app import create_app
from services.serving.trust import Trust
from shared.errors import SignatureInvalid
from shared.messaging.runlog import RunLog
from shared.metrics import provider
from shared.signing import SigningKey
from shared.testing.runs import REF, recorded_log
from tests.registry.registry_office import open_office
from tests.serving.live_server import KEYS, Outcomes

ADAPTER = "SmolLM2-135M-Instruct-tool_calls-v1"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(belief, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(belief, "LONGEST_PAUSE_S", 0.1)


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """What lies under `folder` is out of reach: it looks as an unmounted disk does."""
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(folder)


class World:
    """A promoted adapter's whole log on a broker, and routing over it."""

    def __init__(self, folder, jetstream) -> None:
        self.office = open_office(folder)
        run = self.office.completed()
        self.records = list(self.office.follow(run, self.office.registry.promote(run)).log)
        self.office.store.close()
        self.artifacts = folder / "artifacts"
        self.log = RunLog(jetstream)
        self.directory = Directory()
        trust = Trust(self.office.artifacts, folder / "keys" / "signing-key.pub")
        self.routing = Projection(self.directory, lambda: jetstream, trust)

    async def append(self, *records: Recorded) -> None:
        for record in records:
            await self.log.append(record.ref, record.event, cause=record.cause, key=record.id)

    def answering(self) -> str:
        asked = {"tenant": "acme", "evaluate": False, "conversation": "c"}
        return self.directory.resolve("assistant", **asked).target.model

    async def becomes(self, model: str) -> None:
        async with asyncio.timeout(20):
            while self.answering() != model or (model == ADAPTER and self.routing.waiting):
                await asyncio.sleep(0.02)


@pytest.mark.req("R4")
async def test_a_whole_history_that_came_while_the_store_was_away_is_believed_when_it_is_back(
    jetstream, tmp_path
) -> None:
    world = await asyncio.to_thread(World, tmp_path, jetstream)
    with away(world.artifacts):
        await world.append(*world.records)
        async with world.routing.running():  # a restart within the outage
            await world.routing.catch_up()
            assert (world.answering(), world.routing.waiting) == ("base", 1)
            await asyncio.sleep(0.5)
            assert world.routing.waiting == 1
    async with world.routing.running():
        await world.becomes(ADAPTER)


@pytest.mark.req("R4")
async def test_a_promotion_within_an_outage_counts_after_it_and_operators_see_that_it_waits(
    jetstream, tmp_path
) -> None:
    world = await asyncio.to_thread(World, tmp_path, jetstream)
    *before, promotion = world.records
    assert isinstance(promotion.event, AdapterPromoted)
    await world.append(*before)
    app = create_app(
        engine=lambda: None,
        directory=world.directory,
        keys=KEYS,
        sink=Outcomes(),
        folders=Path,
        waiting=lambda: world.routing.waiting,
    )
    reader = InMemoryMetricReader()
    gauges.observe_routing(
        lambda: world.routing.waiting, provider("serving", [reader]).get_meter("test")
    )

    def told() -> tuple[int, int]:
        """By `/healthz`, and by metrics."""
        (found,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        assert found.name == "sluice.routing.waiting"
        said = TestClient(app).get("/healthz").json()["routing_waits_for"]
        return said, found.data.data_points[0].value

    async with world.routing.running():
        await world.routing.catch_up()
        assert told() == (0, 0)
        with away(world.artifacts):
            await world.append(promotion)
            await world.routing.catch_up()
            assert told() == (1, 1)
            assert ADAPTER not in world.directory.names("acme")
        await world.becomes(ADAPTER)
        assert told() == (0, 0)
        assert ADAPTER in world.directory.names("acme")


@pytest.mark.req("R5")
async def test_a_rollback_waits_for_no_store(jetstream, tmp_path) -> None:
    world = await asyncio.to_thread(World, tmp_path, jetstream)
    back = RolledBack(deployment="assistant", adapter_id=ADAPTER, to="base", reason="r", mend="m")
    last = max(i for i, r in enumerate(world.records) if isinstance(r.event, VerdictAttested))
    before, verdict = world.records[:last], world.records[last]
    *_, rollback = recorded_log(REF, [back], after=world.records[: last + 1])
    await world.append(*before)
    async with world.routing.running():
        await world.routing.catch_up()
        assert world.answering() == ADAPTER  # it has the whole share
        with away(world.artifacts):
            await world.append(verdict, rollback)
            await world.routing.catch_up()
            assert (world.answering(), world.routing.waiting) == ("base", 1)
        async with asyncio.timeout(20):
            while world.routing.waiting:
                await asyncio.sleep(0.02)
        assert world.answering() == "base"  # nor does the verdict undo it, once it is read


@pytest.mark.req("R4")
async def test_a_key_rotated_within_an_outage_takes_no_adapter_away_for_good(
    jetstream, tmp_path
) -> None:
    world = await asyncio.to_thread(World, tmp_path, jetstream)
    await world.append(*world.records)
    async with world.routing.running():
        await world.becomes(ADAPTER)
        with away(world.artifacts):
            SigningKey.rotate(tmp_path / "keys")
            await world.becomes("base")  # what cannot be checked against the new ring
        await world.becomes(ADAPTER)


class Hanging(Trust):
    """Its store neither answers nor fails until it may."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.may, self.asked = threading.Event(), 0

    def require(self, record: Recorded) -> None:
        if isinstance(record.event, belief.READS_ARTIFACTS):
            self.asked += 1
            self.may.wait(20)
        super().require(record)


@pytest.mark.req("R4")
async def test_a_store_that_hangs_holds_nobody_up_and_is_asked_one_thing_at_a_time(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(belief, "ANSWER_WITHIN_S", 0.05)
    office = open_office(tmp_path)
    run = office.completed()
    records = list(office.follow(run, office.registry.promote(run)).log)
    office.store.close()
    trust = Hanging(office.artifacts, tmp_path / "keys" / "signing-key.pub")
    directory = Directory()
    made = belief.Belief(directory, trust)
    for record in records:
        await made.take(record)
    for _ in range(5):
        await asyncio.sleep(0.1)
        await made.again()
    assert (trust.asked, made.waiting) == (1, 1)
    with pytest.raises(UnknownModel):
        directory.adapter("acme", ADAPTER)
    trust.may.set()
    async with asyncio.timeout(20):
        while made.waiting:
            await made.again()
            await asyncio.sleep(0.02)
    assert directory.adapter("acme", ADAPTER).model == ADAPTER


@pytest.mark.req("R4")
async def test_what_is_forged_is_refused_at_once_and_does_not_wait(tmp_path) -> None:
    office = open_office(tmp_path)
    run = office.completed()
    log = office.follow(run, office.registry.promote(run)).log
    trust = Trust(office.artifacts, tmp_path / "keys" / "signing-key.pub")
    office.store.close()
    with pytest.raises(SignatureInvalid):
        trust.require(log[-1])
    made = belief.Belief(Directory(), trust)
    await made.take(log[-1])
    assert made.waiting == 0

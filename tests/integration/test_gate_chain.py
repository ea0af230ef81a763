"""Gates on a real broker: side by side where they can be, and called back where they are moot."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import nats
import pytest

from contracts.base import Service
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob, GateId, GatePolicy
from contracts.run import Run
from services.evaluation import handlers
from shared.messaging.broker import Bus
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps
from shared.testing.runs import REF, gated_events, healthy_job

BESIDE: tuple[GateId, ...] = ("G4", "G5", "G6", "G7", "G12")
GATES: tuple[GateId, ...] = ("G1", "G2", "G3", *BESIDE)


class Bench:
    """Gates that begin, wait for each other, and judge as they are told."""

    def __init__(self, failing: GateId | None = None) -> None:
        self.failing = failing
        self.order: list[GateId] = []
        self.called_back: list[GateId] = []
        self.together = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return lambda step: self._judge(cast("GateId", name.upper()), step)

    async def _judge(self, gate: GateId, step: Step) -> GateJudged:
        self.order.append(gate)
        if set(self.order) >= set(BESIDE):
            self.together.set()
        try:
            if gate in BESIDE:
                await self.together.wait()
            if self.failing in BESIDE and gate in BESIDE and gate != self.failing:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.called_back.append(gate)
            raise
        assert step.run.trained is not None
        return GateJudged(
            gate=gate,
            candidate=step.run.trained.adapter,
            verdict="failed" if gate == self.failing else "passed",
            summary="as told",
            duration_s=0.0,
        )


def job() -> AdaptationJob:
    return healthy_job().model_copy(update={"gates": GatePolicy(required=GATES)})


async def judged(bench: Bench, settings: Any, url: str, done: Any) -> Run:
    connection = await nats.connect(url)
    js = connection.jetstream()
    await provision(js)
    log = RunLog(js)
    events = [e for e in gated_events(job=job()) if not isinstance(e, GateJudged)]
    for number, event in enumerate(events):
        await log.append(REF, event, cause=f"cause-{number}")
    bus = Bus(Service.EVALUATION, settings)
    handlers.register(Steps(bus), cast("Any", bench))
    async with App(bus).running(), asyncio.timeout(40):
        while not done(run := await log.load(REF)):
            await asyncio.sleep(0.05)
    await connection.close()
    return run


@pytest.mark.req("G11")
async def test_cheap_gates_come_first_and_the_others_run_side_by_side(
    nats_server: Any, settings: Any
) -> None:
    bench = Bench()
    run = await judged(bench, settings, nats_server.url, lambda run: len(run.gates) == len(GATES))
    assert bench.order[:3] == ["G2", "G1", "G3"]
    assert sorted(bench.order[3:]) == sorted(BESIDE)
    assert bench.together.is_set()
    assert run.status == "active"


@pytest.mark.req("G11")
async def test_a_gate_that_fails_calls_back_those_still_asking(
    nats_server: Any, settings: Any
) -> None:
    bench = Bench("G6")
    others = set(BESIDE) - {"G6"}
    run = await judged(
        bench,
        settings,
        nats_server.url,
        lambda run: run.closed and others <= set(bench.called_back),
    )
    assert set(run.gates) == {"G1", "G2", "G3", "G6"}
    assert run.status == "failed"


@pytest.mark.req("G11")
async def test_an_early_failure_leaves_the_later_gates_unasked(
    nats_server: Any, settings: Any
) -> None:
    bench = Bench("G2")
    run = await judged(bench, settings, nats_server.url, lambda run: run.closed)
    await asyncio.sleep(0.5)
    assert bench.order == ["G2"]
    assert list(run.gates) == ["G2"]

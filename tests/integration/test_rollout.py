"""A whole rollout on a real nats-server, driven by simulated traffic."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import islice

import pytest

from contracts import subjects
from contracts.rollout import (
    StageStarted,
)
from contracts.subjects import RunRef
from services.rollout.app import create_app
from tests.integration.rollouts import load, register, story, until, users
from tests.rollout import traffic as simulated
from tests.rollout.traffic import ADAPTER, HEALTHY

WHOLE = [
    "started shadow",
    "passed shadow 0",
    *(
        line
        for percent in (1, 10, 50, 100)
        for line in (f"started canary {percent}%", f"passed canary {percent}")
    ),
    "completed",
]


@pytest.mark.req("G8")
@pytest.mark.req("G9")
async def test_a_healthy_candidate_climbs_the_whole_ladder(jetstream, settings) -> None:
    progress = []

    async def keep(message) -> None:
        progress.append(message.data.decode())

    listener = await jetstream._nc.subscribe("sluice.v1.progress.>", cb=keep)
    await register(jetstream)
    async with create_app(settings).running(), users(jetstream, {}):
        run = await until(jetstream, lambda r: "completed" in story(r))
    await listener.unsubscribe()
    assert story(run) == WHOLE
    completed = run.log[-1].event
    assert (completed.adapter_id, completed.replaced) == (ADAPTER, "base")
    stages = [r.event for r in run.log if isinstance(r.event, StageStarted)]
    assert [(s.outcomes, s.requests) for s in stages] == [
        (20, 20),
        (3, 300),
        (10, 100),
        (20, 40),
        (20, 20),
    ]
    assert stages[-1].detects == "20 outcomes: a success of 55% or less would show"
    one_percent = run.stages_judged[1]
    assert "3 outcomes: too few to prove harm" in one_percent.summary
    assert any("more needed" in p for p in progress)
    # At 100 % nobody is left on the stable arm: its reference is the stage before.
    last = {m.name: m for m in run.stages_judged[-1].measurements}
    assert last["stable_success"].n > 0


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("behaviours", "stage"),
    [
        pytest.param({0: simulated.Behaviour(valid=0.2)}, "shadow 0", id="bad in shadow"),
        pytest.param({10: simulated.Behaviour(success=0.1)}, "canary 10", id="bad at 10 %"),
        pytest.param({50: simulated.Behaviour(errors=0.6)}, "canary 50", id="erroring at 50 %"),
        pytest.param({0: simulated.Behaviour(refuses=0.9)}, "shadow 0", id="refusing in shadow"),
        pytest.param({50: simulated.Behaviour(tokens=400)}, "canary 50", id="costly at 50 %"),
        pytest.param({50: simulated.Behaviour(overridden=0.6)}, "canary 50", id="overridden"),
        pytest.param({10: simulated.Behaviour(incidents=0.9)}, "canary 10", id="unsafe at 10 %"),
    ],
)
async def test_a_bad_candidate_is_rolled_back(jetstream, settings, behaviours, stage) -> None:
    await register(jetstream)
    async with create_app(settings).running(), users(jetstream, behaviours):
        run = await until(jetstream, lambda r: r.closed)
    assert run.status == "rolled_back"
    assert story(run)[-2:] == [f"failed {stage}", "rolled_back"]
    event = run.log[-1].event
    assert event.to == "base"
    assert "Evidence of harm" in event.reason


@pytest.mark.req("G9")
async def test_a_restarted_service_reaches_the_same_verdicts(jetstream, settings) -> None:
    """The same recorded outcomes, once watched in one go and once with a restart in between."""
    stages = {}
    for ref, interrupted in ((RunRef("acme", "whole"), False), (RunRef("acme", "cut"), True)):
        deployment = f"assistant-{ref.run}"
        await register(jetstream, ref, deployment=deployment)
        outcomes = list(islice(simulated.shadow_traffic(HEALTHY, seed=11), 40))

        async def publish(some, deployment=deployment) -> None:
            for item in some:
                await jetstream.publish(
                    subjects.telemetry("acme", deployment),
                    item.model_copy(update={"deployment": deployment}).model_dump_json().encode(),
                    stream="TELEMETRY",
                )

        async with create_app(settings).running():
            await until(jetstream, lambda r: r.stage, ref=ref)
            await publish(outcomes[: 20 if interrupted else 40])
            if interrupted:
                await asyncio.sleep(0.7)
            else:
                await until(jetstream, lambda r: r.stages_judged, ref=ref)
        if interrupted:
            assert not (await load(jetstream, ref)).stages_judged
            await publish(outcomes[10:])  # half of what was counted is delivered again
            async with create_app(settings).running():
                await until(jetstream, lambda r: r.stages_judged, ref=ref)
        stages[ref.run] = (await load(jetstream, ref)).stages_judged[0]
    same = {"deployment": "-"}
    assert stages["whole"].model_copy(update=same) == stages["cut"].model_copy(update=same)


@pytest.mark.req("P3")
async def test_a_killed_process_is_taken_over_by_the_next(jetstream, settings, monkeypatch) -> None:
    await register(jetstream)
    environment = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_NATS_URL": settings.nats_url,
    }

    async def start():
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.rollout", env=environment, start_new_session=True
        )

    first = await start()
    async with users(jetstream, {}, pace_s=0.2):
        await until(jetstream, lambda r: "started canary 10%" in story(r))
        first.send_signal(signal.SIGKILL)
        await first.wait()
    second = await start()
    try:
        async with users(jetstream, {}):
            run = await until(jetstream, lambda r: "completed" in story(r), timeout_s=80)
    finally:
        second.terminate()
        await second.wait()
    assert story(run) == WHOLE


@pytest.mark.req("G9")
async def test_manual_approval_waits_at_every_stage_and_the_hold_is_guarded(
    jetstream, settings
) -> None:
    await register(jetstream, approval="manual")
    approve = subjects.command("acme", "r1", "approve")
    behaviours: dict[int, simulated.Behaviour] = {}
    async with create_app(settings).running(), users(jetstream, behaviours):
        await until(jetstream, lambda r: r.status == "held")
        await jetstream.publish(approve, b"{}", stream="JOBS")
        run = await until(jetstream, lambda r: "passed canary 1" in story(r) and r.status == "held")
        assert run.log[-1].event.reason == "canary 1% passed; canary 10% waits for approval"
        await jetstream.publish(approve, b"{}", stream="JOBS")
        await until(jetstream, lambda r: "passed canary 10" in story(r) and r.status == "held")
        behaviours[10] = simulated.Behaviour(success=0.0)  # turns bad while a person thinks
        run = await until(jetstream, lambda r: r.closed)
    assert run.status == "rolled_back"
    assert story(run)[-4:] == ["passed canary 10", "held", "failed canary 10", "rolled_back"]


@pytest.mark.req("G9")
async def test_a_stage_without_traffic_is_held_and_keeps_what_it_collected(
    jetstream, settings
) -> None:
    await register(jetstream, stage_timeout_s=2.0)
    outcomes = [o.model_dump_json().encode() for o in islice(simulated.shadow_traffic(HEALTHY), 40)]
    async with create_app(settings).running():
        await until(jetstream, lambda r: r.stage)
        for body in outcomes[:14]:
            await jetstream.publish("sluice.v1.telemetry.acme.assistant", body, stream="TELEMETRY")
        run = await until(jetstream, lambda r: r.status == "held")
        assert "shadow: 7 of 20 outcomes after 2 s; 13 are missing" in run.log[-1].event.reason
        await jetstream.publish(subjects.command("acme", "r1", "approve"), b"{}", stream="JOBS")
        await until(jetstream, lambda r: r.status == "active")
        for body in outcomes[14:]:
            await jetstream.publish("sluice.v1.telemetry.acme.assistant", body, stream="TELEMETRY")
        run = await until(jetstream, lambda r: r.stages_judged)
    assert run.stages_judged[0].verdict == "passed"
    assert run.stages_judged[0].comparisons[0].n == 20


@pytest.mark.req("G9")
async def test_rollouts_of_several_runs_go_on_at_once(jetstream, settings) -> None:
    refs = [RunRef("acme", f"r{i}") for i in range(4)]
    for i, ref in enumerate(refs):
        await register(jetstream, ref, deployment=f"d{i}")
    async with (
        create_app(settings).running(),
        users(jetstream, {}, ref=refs[0], deployment="d0", pace_s=0.1),
        users(jetstream, {}, ref=refs[2], deployment="d2", pace_s=0.1),
    ):
        # r1 and r3 have no traffic and must not stand in the others' way
        for ref in (refs[0], refs[2]):
            await until(jetstream, lambda r: "passed canary 10" in story(r), ref=ref)
    for ref in (refs[1], refs[3]):
        assert story(await load(jetstream, ref)) == ["started shadow"]

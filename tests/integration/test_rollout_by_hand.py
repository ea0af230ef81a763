"""Who else has a say in a rollout: people, other replicas, other rollouts, critical alerts."""

from __future__ import annotations

import asyncio

import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.base import digest_of
from contracts.registry import AdapterPromoted
from contracts.subjects import RunRef
from contracts.topology import LEASES
from services.rollout.adapters.traffic import Traffic
from services.rollout.app import create_app
from shared.messaging.runlog import RunLog
from tests.integration.rollouts import command, load, register, story, until, users
from tests.rollout import traffic as simulated
from tests.rollout.traffic import ADAPTER


@pytest.mark.req("G9")
async def test_a_deployment_takes_one_rollout_at_a_time_and_rolls_back_to_the_promoted(
    jetstream, settings
) -> None:
    old, new = RunRef("acme", "old"), RunRef("acme", "new")
    await register(jetstream, old, "Base-tool_calls-v1")
    log = RunLog(jetstream)
    async with create_app(settings).running():
        await until(jetstream, lambda r: r.stage, ref=old)
        await register(jetstream, new, "Base-tool_calls-v2")
        held = await until(jetstream, lambda r: r.status == "held", ref=new)
        assert "in the middle of run acme/old" in held.log[-1].event.reason
        promoted = AdapterPromoted(
            adapter_id="Base-tool_calls-v1", deployment="assistant", bundle=digest_of(b"b")
        )
        await log.append(old, promoted, cause="registry")
        await jetstream.publish(subjects.command("acme", "new", "approve"), b"{}", stream="JOBS")
        await until(jetstream, lambda r: r.stage, ref=new)
        async with users(jetstream, {0: simulated.Behaviour(success=0.0)}, ref=new):
            run = await until(jetstream, lambda r: r.closed, ref=new)
    assert run.log[-1].event.to == "Base-tool_calls-v1"


@pytest.mark.req("G9")
async def test_a_person_holds_a_rollout_and_lets_it_go_on(jetstream, settings) -> None:
    await register(jetstream)
    async with create_app(settings).running():
        async with users(jetstream, {}, pace_s=0.05):
            await until(jetstream, lambda r: "started canary 10%" in story(r))
            await command(jetstream, "hold", '{"reason": "a holiday"}')
            held = await until(jetstream, lambda r: r.status == "held")
            await asyncio.sleep(2.5)  # of healthy traffic, enough for the stage to pass
        run = await load(jetstream)
        assert (run.status, run.stage.percent) == ("held", held.stage.percent)
        assert run.log[-1].event.reason == f"canary {held.stage.percent}%: held by hand: a holiday"
        await command(jetstream, "approve")
        async with users(jetstream, {}):
            run = await until(jetstream, lambda r: "completed" in story(r))
    assert story(run).count("held") == 1


@pytest.mark.req("G9")
async def test_a_person_rolls_a_held_rollout_back(jetstream, settings) -> None:
    await register(jetstream)
    async with create_app(settings).running():
        await until(jetstream, lambda r: r.stage)
        await command(jetstream, "hold")
        await until(jetstream, lambda r: r.status == "held")
        await command(jetstream, "rollback", '{"reason": "wrong dataset"}')
        run = await until(jetstream, lambda r: r.closed)
    assert story(run) == ["started shadow", "held", "rolled_back"]
    assert run.log[-1].event.reason == "shadow: rolled back by hand: wrong dataset"


@pytest.mark.req("G9")
async def test_two_replicas_begin_one_rollout_of_a_deployment(jetstream, settings) -> None:
    refs = [RunRef("acme", f"r{i}") for i in range(6)]
    async with create_app(settings).running(), create_app(settings).running():
        await asyncio.gather(
            *(register(jetstream, ref, f"Base-tool_calls-v{i + 1}") for i, ref in enumerate(refs))
        )
        runs = [await until(jetstream, story, ref=ref) for ref in refs]
    assert sorted(story(run)[0] for run in runs) == ["held"] * 5 + ["started shadow"]


def alert(severity: str, **changes: object) -> Alert:
    fields = {
        "id": f"incident-{severity}",
        "tenant": "acme",
        "deployment": "assistant",
        "metric": "safety_incidents",
        "severity": severity,
        "state": "firing",
        "value": 1.0,
        "threshold": 0.0,
        "window": "last 100 requests",
        "n": 40,
        "model": ADAPTER,
        "remediation": "look at it",
        "at": 1.0,
    }
    return Alert.model_validate({**fields, **changes})


@pytest.mark.req("H8")
async def test_a_critical_alert_on_the_candidate_rolls_it_back(jetstream, settings) -> None:
    await register(jetstream)
    harmless = (
        alert("warning"),
        alert("critical", id="base", model="base"),
        alert("critical", id="elsewhere", deployment="other"),
        alert("critical", id="over", state="resolved"),
    )
    async with create_app(settings).running():
        await until(jetstream, lambda r: r.stage)
        for item in (*harmless, alert("critical")):
            await jetstream.publish(
                subjects.alert(item.tenant, item.deployment, item.metric),
                item.model_dump_json().encode(),
                stream="ALERTS",
            )
        run = await until(jetstream, lambda r: r.closed)
    assert run.status == "rolled_back"
    assert run.log[-1].cause == "incident-critical"
    assert "alert safety_incidents 1" in run.log[-1].event.reason


@pytest.mark.req("G9")
async def test_a_begin_that_outlives_its_lease_leaves_the_deployment_to_the_winner(
    jetstream, settings, monkeypatch
) -> None:
    """The first replica stalls between its look and its fact, and the server expires its lease."""
    slow, quick = RunRef("acme", "slow"), RunRef("acme", "quick")
    stalled, asked = asyncio.Event(), Traffic.next_sequence

    async def stall_once(traffic) -> int:
        if not stalled.is_set():
            stalled.set()
            await (await jetstream.key_value(LEASES)).delete("acme.assistant.rollout-approve")
            await register(jetstream, quick, "Base-tool_calls-v2")
            await until(jetstream, lambda r: r.stage, ref=quick)
        return await asked(traffic)

    monkeypatch.setattr(Traffic, "next_sequence", stall_once)
    async with create_app(settings).running(), create_app(settings).running():
        await register(jetstream, slow)
        held = await until(jetstream, story, ref=slow)
    assert story(held) == ["held"]
    assert "in the middle of run acme/quick" in held.log[-1].event.reason
    assert story(await load(jetstream, quick)) == ["started shadow"]

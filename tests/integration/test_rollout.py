"""A whole rollout on a real nats-server, driven by simulated traffic."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from itertools import islice

import nats
import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.base import digest_of
from contracts.diagnosis import RunAccepted
from contracts.job import (
    AdaptationJob,
    BaseModelRef,
    Behaviour,
    CanaryStage,
    DataSource,
    Evaluation,
    EvaluationSet,
    Provenance,
    RolloutPolicy,
)
from contracts.registry import AdapterPromoted, CandidateRegistered
from contracts.rollout import (
    RolledBack,
    RolloutCompleted,
    RolloutHeld,
    StageJudged,
    StageStarted,
)
from contracts.subjects import RunRef
from services.rollout.app import create_app
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from tests.rollout import traffic as simulated
from tests.rollout.traffic import ADAPTER, HEALTHY, STABLE

REF = RunRef("acme", "r1")
LADDER = tuple(
    CanaryStage(percent=p, outcomes=n) for p, n in ((1, 3), (10, 10), (50, 20), (100, 20))
)


def job(**rollout: object) -> AdaptationJob:
    rows = EvaluationSet(uri="rows.jsonl", licence="Apache-2.0")
    policy = {"deployment": "assistant", "shadow_outcomes": 20, "stages": LADDER, **rollout}
    return AdaptationJob(
        name="tool-calls",
        tenant="acme",
        task_namespace="tool_calls",
        base=BaseModelRef(model="Base"),
        behaviour=Behaviour(description="Call the right function", scorer="tool_call", target=0.6),
        data=(
            DataSource(uri="rows.jsonl", licence="Apache-2.0", provenance=Provenance(source="us")),
        ),
        evaluation=Evaluation(dev=rows, heldout=rows),
        rollout=RolloutPolicy.model_validate(policy),
    )


async def register(jetstream, ref: RunRef = REF, adapter: str = ADAPTER, **rollout: object) -> None:
    """The run as the registry leaves it."""
    log, accepted = RunLog(jetstream), job(**rollout)
    digest = digest_of(b"x")
    await log.append(ref, RunAccepted(job=accepted, job_digest=digest), cause="submit")
    candidate = CandidateRegistered(
        adapter_id=adapter, adapter=digest, card=digest, deployment=accepted.rollout.deployment
    )
    await log.append(ref, candidate, cause="gates")


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


async def load(jetstream, ref: RunRef = REF):
    return await RunLog(jetstream).load(ref)


async def until(jetstream, predicate, *, ref: RunRef = REF, timeout_s: float = 45.0):
    async with asyncio.timeout(timeout_s):
        while not predicate(run := await load(jetstream, ref)):
            await asyncio.sleep(0.05)
    return run


@asynccontextmanager
async def users(jetstream, behaviours, *, ref: RunRef = REF, deployment="assistant", pace_s=0.004):
    """Serving and its users: splits traffic as the run's newest stage says, publishes outcomes."""

    leaving = asyncio.Event()

    async def serve() -> None:
        rng, log, number = random.Random(0), RunLog(jetstream), 0
        while not leaving.is_set():
            run = await log.load(ref)
            stage = run.stage if not run.closed else None
            for _ in range(10):
                number += 1
                for outcome in answers(stage, f"{ref.run}-{number}", rng):
                    await jetstream.publish(
                        subjects.telemetry("acme", deployment),
                        outcome.model_dump_json().encode(),
                        stream="TELEMETRY",
                    )
                    if outcome.arm == "canary":
                        await opine(outcome, behaviours.get(stage.percent, HEALTHY))
            await asyncio.sleep(pace_s)

    async def opine(outcome, behaviour) -> None:
        for opinion in simulated.feedback(outcome, behaviour):
            await jetstream.publish(
                subjects.feedback("acme", deployment),
                opinion.model_dump_json().encode(),
                stream="TELEMETRY",
            )

    def answers(stage, request, rng):
        about = {"deployment": deployment, "adapter": stage.adapter_id if stage else ADAPTER}
        if stage and stage.stage == "canary" and rng.random() * 100 < stage.percent:
            behaviour = behaviours.get(stage.percent, HEALTHY)
            return [simulated.outcome(request, "canary", behaviour, rng, **about)]
        found = [simulated.outcome(request, "stable", STABLE, rng, **about)]
        if stage and stage.stage == "shadow":
            behaviour = behaviours.get(0, HEALTHY)
            found.append(simulated.outcome(request, "shadow", behaviour, rng, **about))
        return found

    task = asyncio.create_task(serve())
    try:
        yield
    finally:
        leaving.set()  # not cancelled: `wait_for` of Python 3.11 may swallow it, for ever
        await asyncio.gather(task, return_exceptions=True)


def story(run) -> list[str]:
    """The rollout's facts in a line each."""
    lines = []
    for record in run.log:
        match record.event:
            case StageStarted() as event:
                lines.append(f"started {event.label}")
            case StageJudged() as event:
                lines.append(f"{event.verdict} {event.stage} {event.percent}")
            case RolledBack() | RolloutHeld() | RolloutCompleted() as event:
                lines.append(event.fact)
    return lines


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


async def command(jetstream, verb: str, body: str = "{}", ref: RunRef = REF) -> None:
    await jetstream.publish(subjects.command("acme", ref.run, verb), body.encode(), stream="JOBS")


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

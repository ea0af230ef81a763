"""Rollouts for the tests beside this file: registered runs, and simulated users of a deployment."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

from contracts import subjects
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
from contracts.registry import CandidateRegistered, VerdictAttested
from contracts.rollout import (
    RolledBack,
    RolloutCompleted,
    RolloutHeld,
    StageJudged,
    StageStarted,
)
from contracts.subjects import RunRef
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


async def load(jetstream, ref: RunRef = REF):
    return await RunLog(jetstream).load(ref)


async def until(jetstream, predicate, *, ref: RunRef = REF, timeout_s: float = 45.0):
    async with asyncio.timeout(timeout_s):
        while not predicate(run := await load(jetstream, ref)):
            await asyncio.sleep(0.05)
    return run


@asynccontextmanager
async def users(jetstream, behaviours, *, ref: RunRef = REF, deployment="assistant", pace_s=0.004):
    """Serving, its users, and a registry that attests what passed without signing anything."""

    leaving = asyncio.Event()

    async def serve() -> None:
        rng, log, number = random.Random(0), RunLog(jetstream), 0
        while not leaving.is_set():
            run = await attest(log, await log.load(ref))
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

    async def attest(log: RunLog, run):
        done = {r.event.attests for r in run.log if isinstance(r.event, VerdictAttested)}
        for record in run.log:
            verdict = record.event
            if not isinstance(verdict, StageJudged) or verdict.verdict != "passed":
                continue
            if record.id not in done:
                fact = VerdictAttested(
                    adapter_id=verdict.adapter_id,
                    deployment=verdict.deployment,
                    name="G8" if verdict.stage == "shadow" else f"G9-{verdict.percent}%",
                    index=len(done),
                    attests=record.id,
                    attestation=digest_of(b"x"),
                    payload=digest_of(b"x"),
                )
                run = await log.append(ref, fact, cause=record.id, reopen=True)
                done.add(record.id)
        return run

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


async def command(jetstream, verb: str, body: str = "{}", ref: RunRef = REF) -> None:
    await jetstream.publish(subjects.command("acme", ref.run, verb), body.encode(), stream="JOBS")

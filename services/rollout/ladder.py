"""The ladder: shadow, then canary stages, then completion; and who served before.

Pure decisions over a run and its job's policy. The states a rollout can rest in are facts in the
run log, so nothing here remembers anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from contracts.base import Event
from contracts.envelope import Recorded
from contracts.job import CanaryStage, RolloutPolicy
from contracts.registry import CandidateRegistered, VerdictAttested
from contracts.rollout import (
    RolledBack,
    RolloutCompleted,
    RolloutHeld,
    StageJudged,
    StageStarted,
)
from contracts.run import Run
from contracts.subjects import RunRef

BASE = "base"


def policy_of(run: Run) -> RolloutPolicy:
    """The rollout policy of the run's job. A registered run always has one."""
    if run.job is None:
        raise ValueError(f"run {run.ref} has no job")
    return run.job.rollout


def first_stage(candidate: CandidateRegistered, *, since: int) -> StageStarted:
    """Shadow: the candidate mirrors and answers nobody."""
    return StageStarted(
        deployment=candidate.deployment,
        adapter_id=candidate.adapter_id,
        stage="shadow",
        percent=0,
        since=since,
    )


def wanted(policy: RolloutPolicy, stage: StageStarted) -> int:
    """Outcomes the stage collects before it is judged."""
    if stage.stage == "shadow":
        return policy.shadow_outcomes
    return next(s.outcomes for s in policy.stages if s.percent == stage.percent)


def rung_after(policy: RolloutPolicy, percent: int) -> CanaryStage | None:
    """The canary stage after `percent` (0: shadow); None after the last."""
    return next((s for s in policy.stages if s.percent > percent), None)


def awaited(run: Run, trigger: Recorded) -> Recorded | None:
    """The verdict on which `trigger` lets the rollout act; None if it does not.

    A failed or doubtful verdict acts at once. A passed one waits for its attestation: serving gives
    no share to a stage whose predecessor's verdict is not signed (R4).
    """
    newest = next(
        (r for r in reversed(run.log) if isinstance(r.event, StageJudged | StageStarted)), None
    )
    if newest is None or not isinstance(newest.event, StageJudged):
        return None
    if newest.event.verdict != "passed":
        return newest if trigger.id == newest.id else None
    fact = trigger.event
    return newest if isinstance(fact, VerdictAttested) and fact.attests == newest.id else None


def unsigned_pass(run: Run) -> bool:
    """Whether the present stage's passed verdict has no attestation yet."""
    for record in reversed(run.log):
        match record.event:
            case VerdictAttested() | StageStarted():
                return False
            case StageJudged(verdict=verdict):
                return verdict == "passed"
    return False


def decide(run: Run, judged: StageJudged, *, since: int, incumbent: str) -> Event | None:
    """What follows a verdict. Nothing but a rollback moves a run that is held."""
    if run.status == "held" and judged.verdict != "failed":
        return None
    about = {"deployment": judged.deployment, "adapter_id": judged.adapter_id}
    if judged.verdict == "failed":
        return RolledBack(
            **about,
            to=incumbent,
            reason=f"{_label(judged)}: {judged.summary}",
            mend="read the stage's measurements; mend the data or the recipe and submit again",
        )
    if judged.verdict == "inconclusive":
        return RolloutHeld(
            **about,
            reason=f"{_label(judged)}: {judged.summary}",
            mend="`sluice approve` judges the stage again on new traffic; `sluice cancel` ends it",
        )
    rung = rung_after(policy_of(run), judged.percent)
    if rung is None:
        return RolloutCompleted(**about, replaced=incumbent)
    if policy_of(run).approval == "manual":
        return RolloutHeld(
            **about,
            reason=f"{_label(judged)} passed; canary {rung.percent}% waits for approval",
            mend="`sluice approve` starts it; `sluice cancel` ends the rollout",
        )
    return _canary(judged.deployment, judged.adapter_id, rung.percent, since)


def timed_out(stage: StageStarted, *, have: int, want: int, timeout_s: float) -> RolloutHeld:
    """The hold of a stage that saw too little traffic."""
    return RolloutHeld(
        deployment=stage.deployment,
        adapter_id=stage.adapter_id,
        reason=f"{stage.label}: {have} of {want} outcomes after {timeout_s:g} s; "
        f"{max(0, want - have)} are missing",
        mend="send traffic to the deployment, then `sluice approve` goes on collecting",
    )


def occupied(candidate: CandidateRegistered, by: RunRef) -> RolloutHeld:
    """The hold of a rollout whose deployment is in the middle of another."""
    return RolloutHeld(
        deployment=candidate.deployment,
        adapter_id=candidate.adapter_id,
        reason=f"deployment {candidate.deployment} is in the middle of run {by}'s rollout",
        mend=f"wait for run {by} or cancel it, then `sluice approve` begins",
    )


def released(run: Run, *, since: int) -> StageStarted | None:
    """The stage an approval starts; None if nothing waits for one.

    After a pass it is the next stage; after an inconclusive verdict the same on fresh traffic;
    after a timeout the same, and what it collected still counts.
    """
    if run.status != "held" or run.registered is None:
        return None
    stage = run.stage
    if stage is None:
        return first_stage(run.registered, since=since)
    judged = _verdict_of_present_stage(run)
    if judged is None:
        return stage
    if judged.verdict == "inconclusive":
        return stage.model_copy(update={"since": since})
    rung = rung_after(policy_of(run), stage.percent)
    return _canary(stage.deployment, stage.adapter_id, rung.percent, since) if rung else None


def in_rollout(run: Run) -> bool:
    """Whether a candidate of the run is, or waits to be, on its deployment."""
    return run.registered is not None and not run.closed and run.promoted is None


def held_by_hand(run: Run, reason: str) -> RolloutHeld | None:
    """The hold a person asks for; None if nothing moves that could be held."""
    if run.stage is None or run.status != "active":
        return None
    return RolloutHeld(
        deployment=run.stage.deployment,
        adapter_id=run.stage.adapter_id,
        reason=f"{run.stage.label}: held by hand" + (f": {reason}" if reason else ""),
        mend="`sluice approve` goes on; `sluice rollback` ends the rollout",
    )


def rolled_back(run: Run, *, to: str, reason: str, mend: str) -> RolledBack | None:
    """The end of a rollout for a reason of somebody else's; None if there is no rollout to end."""
    if run.registered is None or not in_rollout(run):
        return None
    return RolledBack(
        deployment=run.registered.deployment,
        adapter_id=run.registered.adapter_id,
        to=to,
        reason=f"{run.stage.label}: {reason}" if run.stage else reason,
        mend=mend,
    )


def newest_hold(run: Run) -> Recorded:
    """The record of the hold the run rests in. Raises LookupError if there is none."""
    for record in reversed(run.log):
        if isinstance(record.event, RolloutHeld):
            return record
    raise LookupError(f"run {run.ref} was never held")


def reference_since(run: Run, stage: StageStarted) -> int:
    """From which sequence stable outcomes serve as the stage's reference.

    At 100 % the stable arm answers nobody, so the stage before lends its own.
    """
    if stage.percent < 100:
        return stage.since
    earlier = [
        record.event.since
        for record in run.log
        if isinstance(record.event, StageStarted)
        and record.event.adapter_id == stage.adapter_id
        and record.event.percent < stage.percent
    ]
    return min(stage.since, earlier[-1]) if earlier else stage.since


def incumbent(runs: Iterable[Run], deployment: str) -> str:
    """What the deployment serves by promotion: the newest promoted adapter, or `base`."""
    promotions = [
        (record.seq, run.promoted.adapter_id)
        for run in runs
        if run.promoted is not None and run.promoted.deployment == deployment
        for record in run.log
        if record.event is run.promoted
    ]
    return max(promotions)[1] if promotions else BASE


def occupant(runs: Iterable[Run], deployment: str, *, but: RunRef) -> RunRef | None:
    """Another run whose rollout holds the deployment now."""
    for run in runs:
        on_it = run.stage is not None and run.stage.deployment == deployment
        if on_it and run.ref != but and not run.closed:
            return run.ref
    return None


def _verdict_of_present_stage(run: Run) -> StageJudged | None:
    for record in reversed(run.log):
        if isinstance(record.event, StageJudged):
            return record.event
        if isinstance(record.event, StageStarted):
            return None
    return None


def _canary(deployment: str, adapter_id: str, percent: int, since: int) -> StageStarted:
    return StageStarted(
        deployment=deployment, adapter_id=adapter_id, stage="canary", percent=percent, since=since
    )


def _label(judged: StageJudged) -> str:
    return "shadow" if judged.stage == "shadow" else f"canary {judged.percent}%"

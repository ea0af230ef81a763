"""A deployment's history is a fold of the run log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts.base import Event, digest_of
from contracts.diagnosis import RunAccepted
from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageStarted
from contracts.subjects import RunRef
from services.cli.history import history
from shared.messaging.runlog import RunLog
from tests.cli.conftest import SAMPLES

DIGEST = digest_of(b"x")
OLD, NEW = "Base-calls-v1", "Base-calls-v2"


def about(adapter: str, deployment: str = "assistant") -> dict[str, str]:
    return {"deployment": deployment, "adapter_id": adapter}


def stage(adapter: str, percent: int) -> StageStarted:
    return StageStarted(
        **about(adapter),
        stage="canary" if percent else "shadow",
        percent=percent,
        since=0,
        detects="50 outcomes: a success of 68% or less would show" if percent else "",
    )


OLD_STORY: list[tuple[Event, str]] = [
    (CandidateRegistered(**about(OLD), adapter=DIGEST, card=DIGEST), "gates"),
    (stage(OLD, 0), "registered"),
    (RolloutCompleted(**about(OLD), replaced="base"), "judged"),
    (AdapterPromoted(**about(OLD), bundle=DIGEST), "completed"),
]
NEW_STORY: list[tuple[Event, str]] = [
    (RolloutHeld(**about(NEW), reason="shadow passed; waits", mend=""), "judged"),
    (stage(NEW, 10), "fact-4"),
    (RolledBack(**about(NEW), to=OLD, reason="canary 10%: alert x 1", mend=""), "incident"),
    (
        AdapterWithdrawn(
            **about(OLD),
            adapter=DIGEST,
            to="base",
            kind="revoked",
            reason="licence lost",
            revocation=DIGEST,
        ),
        "JOBS:7",
    ),
]


def records(*stories: tuple[str, list[tuple[Event, str]]]) -> list[Recorded]:
    start, found = datetime(2026, 1, 5, tzinfo=UTC), []
    for run, story in stories:
        for event, cause in story:
            number = len(found)
            found.append(
                Recorded(
                    id=f"fact-{number}",
                    ref=RunRef("demo", run),
                    event=event,
                    cause=cause,
                    at=start + timedelta(minutes=number),
                    seq=number + 1,
                )
            )
    return found


@pytest.mark.req("R5")
def test_history_says_what_served_when_who_let_it_and_why_it_ended() -> None:
    lines = list(history(records(("old", OLD_STORY), ("new", NEW_STORY)), "assistant"))
    assert [(line.what, line.by, line.serves) for line in lines] == [
        ("registered", "registry", "base"),
        ("shadow began", "rollout", "base"),
        ("rollout completed", "rollout", OLD),
        ("promoted", "registry", OLD),
        ("held", "rollout", OLD),
        ("canary 10% began", "a person", f"{OLD} + 10% {NEW}"),
        ("rolled back", "an alert", OLD),
        ("withdrawn (revoked)", "a person", "base"),
    ]
    assert lines[-2].why == "canary 10%: alert x 1"


def test_another_deployments_facts_are_left_out() -> None:
    assert list(history(records(("old", OLD_STORY)), "other")) == []


@pytest.mark.req("R5")
async def test_the_command_tells_it_of_the_tenant_alone(sluice, js) -> None:
    log = RunLog(js)
    for event, cause in OLD_STORY:
        await log.append(RunRef("demo", "old"), event, cause=cause)
        await log.append(RunRef("globex", "old"), event, cause=cause)
    done = await sluice("history", "assistant")
    assert done.code == 0
    assert done.out.count("promoted, by registry") == 1
    assert f"→ serves {OLD}" in done.out
    rows = await sluice("history", "assistant", "--json")
    assert len(rows.out.splitlines()) == len(OLD_STORY)


@pytest.mark.req("R5")
async def test_two_adapters_are_compared_by_their_ids(sluice, js) -> None:
    log = RunLog(js)
    for run, version in (("one", 1), ("two", 2)):
        accepted = RunAccepted.model_validate_json(
            (SAMPLES / "diagnosis.accepted.json").read_text()
        )
        fact = CandidateRegistered(**about(f"Base-calls-v{version}"), adapter=DIGEST, card=DIGEST)
        await log.append(RunRef("demo", run), accepted, cause="submit")
        await log.append(RunRef("demo", run), fact, cause="gates")
    done = await sluice("compare", OLD, NEW, "--all", "--json")
    assert done.code == 0, done.err
    assert '"demo/one"' in done.out
    assert '"demo/two"' in done.out
    missing = await sluice("compare", OLD, "Base-calls-v3")
    assert missing.code == 2

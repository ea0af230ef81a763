from datetime import UTC, datetime

import pytest

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.rollout import RolledBack, RolloutCompleted, StageStarted
from contracts.subjects import RunRef
from contracts.training import AdapterTrained
from services.serving.directory import Directory, UnknownModel, in_share

DIGEST = "sha256:" + "a" * 64
NAME = "tiny-task-v1"


def fact(event, *, seq, tenant="acme", run="r1"):
    return Recorded(
        id=f"{seq}",
        ref=RunRef(tenant, run),
        event=event,
        cause="",
        seq=seq,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def trained(digest=DIGEST):
    return AdapterTrained(
        adapter=digest,
        recipe=DIGEST,
        base=DIGEST,
        tokenizer=DIGEST,
        weights=DIGEST,
        steps=1,
        train_loss=1.0,
        validation_loss=None,
        tokens_per_s=1.0,
        peak_memory_bytes=1,
        duration_s=1.0,
    ).model_copy(update={"base": None})


def story():
    stage = {"deployment": "bot", "adapter_id": NAME, "since": 0}
    return [
        fact(trained(), seq=1),
        fact(
            CandidateRegistered(adapter_id=NAME, adapter=DIGEST, card=DIGEST, deployment="bot"),
            seq=2,
        ),
        fact(StageStarted(stage="shadow", percent=0, **stage), seq=3),
        fact(StageStarted(stage="canary", percent=50, **stage), seq=4),
        fact(RolloutCompleted(deployment="bot", adapter_id=NAME, replaced="base"), seq=5),
        fact(AdapterPromoted(adapter_id=NAME, deployment="bot", bundle=DIGEST), seq=6),
    ]


def ask(directory, model="bot", tenant="acme", evaluate=False, conversation="c"):
    return directory.resolve(model, tenant=tenant, evaluate=evaluate, conversation=conversation)


def test_a_rollout_moves_from_shadow_over_canary_to_stable():
    steps = story()
    shadow = ask(Directory(records=steps[:3]))
    assert (shadow.target.model, shadow.mirror.model) == ("base", NAME)
    arms = {ask(Directory(records=steps[:4]), conversation=str(i)).target.model for i in range(40)}
    assert arms == {"base", NAME}
    promoted = ask(Directory(records=steps))
    assert (promoted.target.model, promoted.arm, promoted.mirror) == (NAME, "stable", None)


def test_facts_that_come_twice_or_late_change_nothing():
    steps = story()
    assert ask(Directory(records=[*steps, *steps])) == ask(Directory(records=steps))
    assert ask(Directory(records=[*steps, steps[3], steps[2]])) == ask(Directory(records=steps))


def test_a_rollback_answers_from_where_it_says():
    back = RolledBack(deployment="bot", adapter_id=NAME, to="base", reason="r", mend="m")
    route = ask(Directory(records=[*story()[:4], fact(back, seq=9)]))
    assert (route.target.model, route.fallback, route.mirror) == ("base", None, None)


@pytest.mark.req("V5")
@pytest.mark.parametrize("model", ["bot", NAME, f"candidate:{DIGEST}"])
def test_nothing_of_a_tenant_is_nameable_by_another(model):
    with pytest.raises(UnknownModel):
        ask(Directory(records=story()), model, tenant="globex", evaluate=True)


@pytest.mark.req("V5")
def test_another_tenant_cannot_take_over_an_adapter_id():
    theft = CandidateRegistered(adapter_id=NAME, adapter=DIGEST, card=DIGEST, deployment="x")
    directory = Directory(records=[*story(), fact(theft, seq=20, tenant="globex")])
    assert ask(directory).target.model == NAME


def test_a_growing_share_only_adds_conversations():
    conversations = [str(i) for i in range(2000)]
    shares = [{c for c in conversations if in_share("bot", c, p)} for p in (0, 10, 50, 100)]
    assert shares[0] == set()
    assert shares[1] < shares[2] < shares[3] == set(conversations)
    assert 0.07 < len(shares[1]) / 2000 < 0.13


def withdrawn(to="base"):
    return AdapterWithdrawn(
        adapter_id=NAME,
        adapter=DIGEST,
        deployment="bot",
        to=to,
        kind="revoked",
        reason="its data may no longer be used",
        revocation=DIGEST,
    )


@pytest.mark.req("R5")
@pytest.mark.parametrize("until", range(2, len(story()) + 1))
def test_a_withdrawn_adapter_answers_nobody_whatever_its_rollout_had_reached(until):
    records = story()[:until]
    directory = Directory(records=[*records, fact(withdrawn(), seq=100), *records])
    with pytest.raises(UnknownModel):
        ask(directory, NAME)
    route = ask(directory)
    assert (route.target.model, route.mirror, route.arm) == ("base", None, "stable")

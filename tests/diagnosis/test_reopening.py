"""News re-open the decisions whose conditions they break, and no others; on a real server too."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import nats
import pytest
from pydantic import ValidationError

from contracts import subjects
from contracts.base import digest_of
from contracts.commands import Reconsider
from contracts.diagnosis import DecisionReopened, RunAccepted, RunRejected, TrainingDeclined
from contracts.envelope import Recorded
from contracts.run import fold
from contracts.subjects import RunRef
from services.diagnosis.app import create_app
from services.diagnosis.reopening import Reopening, reopening
from services.diagnosis.verdict import decide
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.settings import Settings
from shared.testing.tiny_model import build_tiny_llama
from tests.diagnosis.jobs import job, scored
from tests.diagnosis.test_veto import LEDGER

REF = RunRef("demo", "r1")
ROWS = [{"id": f"r{n}", "messages": [{"role": "user", "content": f"q{n}"}]} for n in range(3)]


def run_of(*events):
    return fold(
        REF,
        [
            Recorded(seq=n, id=str(n), ref=REF, event=event, cause="c", at=datetime.now(UTC))
            for n, event in enumerate(events, start=1)
        ],
    )


def asked(**economics):
    return job(economics={**LEDGER, "monthly_requests": 60_000, **economics})


def accepted(**economics):
    return RunAccepted(job=asked(**economics), job_digest=digest_of(b"job"))


def rejected(**economics):
    return RunRejected(problems=(), job=asked(**economics))


def declined():
    the_job = asked()
    decision = decide(the_job, scored([1.0] * 40), [])
    return TrainingDeclined(
        diagnosis=decision.diagnosis, rung="no_adaptation", certificate=digest_of(b"certificate")
    )


CASES = [
    pytest.param(
        [rejected(monthly_requests=10)],
        {"monthly_requests": 60_000},
        "pays now",
        id="traffic arrives",
    ),
    pytest.param(
        [rejected(fallback_rate=0.999)], {"fallback_rate": 0.02}, "pays now", id="fewer fallbacks"
    ),
    pytest.param(
        [rejected(monthly_requests=10)],
        {"monthly_requests": 11},
        None,
        id="still too little traffic",
    ),
    pytest.param(
        [accepted()], {"teacher_price_per_mtok": 0.1}, "no longer pays", id="the teacher gets cheap"
    ),
    pytest.param(
        [accepted()], {"fallback_rate": 0.999}, "no longer pays", id="fallbacks eat the saving"
    ),
    pytest.param([accepted()], {"teacher_price_per_mtok": 14.0}, None, id="it pays all the same"),
    pytest.param(
        [accepted(), declined()], {"success": 0.4}, "falls below the target", id="the rung fails"
    ),
    pytest.param([accepted(), declined()], {"success": 0.6}, None, id="the rung suffices"),
    pytest.param(
        [accepted(), declined()], {"price_per_mtok": 3.0}, "price, traffic", id="the rung's price"
    ),
    pytest.param(
        [accepted(), declined()], {"price_per_mtok": 0.151}, None, id="next to the same price"
    ),
    pytest.param([accepted(), declined()], {"latency_ms": 900}, "latency", id="the rung's latency"),
    pytest.param([RunRejected(problems=())], {"success": 0.1}, None, id="no job at all"),
]


@pytest.mark.req("E2", "D4")
@pytest.mark.parametrize(("events", "news", "says"), CASES)
def test_a_decision_is_reopened_by_news_that_break_its_conditions(events, news, says):
    run = run_of(*events)
    found = reopening(run, Reconsider(reason="price list", **news))
    if says is None:
        assert isinstance(found, str)
        return
    assert isinstance(found, Reopening)
    assert says in found.fact.reason
    assert "price list" in found.fact.reason
    assert found.fact.news == news
    after = run_of(*events, found.fact)
    assert (after.status, after.job, after.attempt) == (run.status, run.job, run.attempt)


def test_news_without_a_number_are_none():
    with pytest.raises(ValidationError, match="at least one number"):
        Reconsider(reason="hm")


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    yield js
    await connection.close()


@pytest.mark.req("E2")
@pytest.mark.slow
async def test_traffic_reopens_a_vetoed_run_and_its_absence_stops_it_again(
    jetstream, settings: Settings, tmp_path
):
    build_tiny_llama(settings.home / "models" / "m")
    for name, field in (("a", "target"), ("b", "expected"), ("c", "expected")):
        lines = "".join(json.dumps(row | {field: "x"}) + "\n" for row in ROWS)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    the_job = job(
        economics={**LEDGER, "monthly_requests": 10},
        data=[
            {
                "uri": (tmp_path / "a.jsonl").as_uri(),
                "licence": "MIT",
                "provenance": {"source": "s"},
            }
        ],
        evaluation__dev={"uri": (tmp_path / "b.jsonl").as_uri(), "licence": "MIT"},
        evaluation__heldout={"uri": (tmp_path / "c.jsonl").as_uri(), "licence": "MIT"},
        evaluation__minimum_items=2,
    )
    log = RunLog(jetstream)

    async def until(*facts: str):
        async with asyncio.timeout(30):
            while True:
                run = await log.load(REF)
                if [r.event.fact for r in run.log][: len(facts)] == list(facts):
                    return run
                await asyncio.sleep(0.05)

    async def publish(verb: str, body) -> None:
        await jetstream.publish(
            subjects.command(REF.tenant, REF.run, verb),
            body.model_dump_json(by_alias=True).encode(),
        )

    async with create_app(settings).running():
        await publish("submit", the_job)
        vetoed = await until("rejected")
        assert "break even" in vetoed.log[0].event.problems[0].problem
        await publish("reconsider", Reconsider(monthly_requests=11))
        await publish("reconsider", Reconsider(monthly_requests=60_000))
        again = await until("rejected", "reopened", "accepted")
        assert isinstance(again.log[1].event, DecisionReopened)
        assert again.attempt == 1
        assert again.job.economics.monthly_requests == 60_000
        await publish("reconsider", Reconsider(teacher_price_per_mtok=0.1))
        stopped = await until("rejected", "reopened", "accepted", "reopened", "rejected")
        assert stopped.status == "rejected"
        assert "no volume breaks even" in stopped.log[4].event.problems[0].problem

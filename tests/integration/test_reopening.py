"""A veto, a new price, and the question asked anew: the diagnosis service on a real nats-server."""

from __future__ import annotations

import asyncio

import nats
import pytest

from contracts import subjects
from contracts.commands import Observe, Retry
from contracts.diagnosis import DecisionReopened, DiagnosisHalted, RunAccepted, TrainingVetoed
from contracts.subjects import RunRef
from services.diagnosis.app import create_app
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.testing.tiny_model import build_tiny_llama
from tests.diagnosis.jobs import job
from tests.integration.test_price_list import SAID, rows

REF = RunRef("demo", "dear")
ECONOMICS = {
    "price_per_mtok": 0.15,
    "teacher_price_per_mtok": 15.0,
    "one_off": {"training": 5700.0},
    "tokens_per_request": 1000,
    "monthly_requests": 30_000,
}


@pytest.mark.req("D4", "E2")
async def test_a_vetoed_run_is_open_again_once_the_teacher_is_dear_enough(
    settings, tmp_path
) -> None:
    base = build_tiny_llama(tmp_path / "models" / "Tiny")
    submitted = job(
        base__model=str(base),
        data=[
            {
                "uri": rows(tmp_path, "train", SAID),
                "licence": "MIT",
                "provenance": {"source": "s"},
            }
        ],
        evaluation__dev__uri=rows(tmp_path, "dev", SAID),
        evaluation__heldout__uri=rows(tmp_path, "heldout", SAID[:2]),
        economics=ECONOMICS,
    )
    connection = await nats.connect(settings.nats_url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    log = RunLog(jetstream)

    async def ask(verb, body) -> None:
        await jetstream.publish(
            subjects.command(REF.tenant, REF.run, verb),
            body.model_dump_json(by_alias=True).encode(),
            stream="JOBS",
        )

    async def facts(count):
        async with asyncio.timeout(30):
            while len((await log.load(REF)).log) < count:
                await asyncio.sleep(0.05)
        return [record.event for record in (await log.load(REF)).log]

    async with create_app(settings).running():
        await ask("submit", submitted)
        accepted, vetoed = await facts(2)
        assert isinstance(accepted, RunAccepted)
        assert isinstance(vetoed, TrainingVetoed)
        assert "383,838 requests break even" in vetoed.problems[0].problem
        await ask("observe", Observe(quantity="teacher_price_per_mtok", value=15.5))
        await ask("observe", Observe(quantity="teacher_price_per_mtok", value=20, source="list"))
        reopened = (await facts(3))[-1]
        assert isinstance(reopened, DecisionReopened)
        assert (reopened.value, reopened.source) == (20, "list")
        await ask("retry", Retry())
        again, next_word = (await facts(5))[-2:]
    await connection.close()
    assert isinstance(again, RunAccepted)
    assert again.job.economics.teacher_price_per_mtok == 20
    assert isinstance(next_word, DiagnosisHalted), "the veto stands"
    assert next_word.reason == "evaluation_gap"

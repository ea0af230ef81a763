"""A job whose rows are a price list, submitted to the diagnosis service on a real nats-server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest

from contracts import subjects
from contracts.diagnosis import DiagnosisHalted, RunAccepted
from contracts.subjects import RunRef
from services.diagnosis.app import create_app
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.testing.tiny_model import build_tiny_llama
from tests.diagnosis.jobs import job

REF = RunRef("demo", "price-list")
PRICES = {"Basic": "9.99", "Plus": "19.99", "Max": "29.99"}
SAID = [(f"Say {word}", word) for word in ("one", "two", "three")]


def rows(folder: Path, name: str, pairs: list[tuple[str, str]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "id": f"{name}-{n}",
                    "messages": [{"role": "user", "content": request}],
                    "target": target,
                    "expected": target,
                }
            )
            + "\n"
            for n, (request, target) in enumerate(pairs)
        )
    )
    return path.as_uri()


@pytest.mark.req("D1")
async def test_a_price_list_halts_the_run_with_its_rows_named_before_a_model_is_asked(
    settings, tmp_path
) -> None:
    priced = [(f"What is {n}?", f"The {n} plan costs ${p} per month.") for n, p in PRICES.items()]
    base = build_tiny_llama(tmp_path / "models" / "Tiny")
    source = {"licence": "MIT", "provenance": {"source": "s"}}
    submitted = job(
        base__model=str(base),
        data=[source | {"uri": rows(tmp_path, "train", SAID + priced)}],
        evaluation__dev__uri=rows(tmp_path, "dev", SAID),
        evaluation__heldout__uri=rows(tmp_path, "heldout", SAID[:2]),
    )
    connection = await nats.connect(settings.nats_url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    async with create_app(settings).running():
        await jetstream.publish(
            subjects.command(REF.tenant, REF.run, "submit"),
            submitted.model_dump_json(by_alias=True).encode(),
            stream="JOBS",
        )
        async with asyncio.timeout(30):
            while not (run := await RunLog(jetstream).load(REF)).closed:
                await asyncio.sleep(0.05)
    await connection.close()
    accepted, halted = (record.event for record in run.log)
    assert isinstance(accepted, RunAccepted)
    assert isinstance(halted, DiagnosisHalted)
    assert halted.reason == "volatile_facts"
    assert [problem.where for problem in halted.problems] == [
        f"row train-{n}" for n in range(len(SAID), len(SAID + priced))
    ]
    assert all("price" in problem.problem and problem.mend for problem in halted.problems)

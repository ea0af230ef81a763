"""Diagnosis on a real nats-server, against an endpoint that answers as a base of known faults."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import nats
import pytest
import uvicorn
from fastapi import FastAPI, Request
from typer.testing import CliRunner

from contracts import subjects
from contracts.card import CERTIFICATE_TYPE
from contracts.diagnosis import RunAccepted, RungName, TrainingAdvised, TrainingDeclined
from contracts.job import AdaptationJob
from contracts.run import Run
from contracts.subjects import RunRef
from services.cli.main import app as cli
from services.diagnosis.app import create_app
from shared.artifacts import ArtifactStore
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.settings import Settings
from shared.signing import SigningKey, open_envelope
from shared.testing.tiny_model import build_tiny_llama
from tests.diagnosis.failures.accuracy import labelled
from tests.diagnosis.jobs import job

ITEMS = 30
Answers = Callable[[dict[str, Any]], str]
RIGHT, INVALID = '{"answer": "yes"}', "yes!"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}},
    "required": ["answer"],
}


def told(body: dict[str, Any]) -> bool:
    return str(body["messages"][-1]["content"]).startswith("That answer cannot be used")


def cured_by_constraints(body: dict[str, Any]) -> str:
    return RIGHT if "response_format" in body else INVALID


def cured_by_complaints(body: dict[str, Any]) -> str:
    return RIGHT if told(body) else INVALID


def cured_by_documents(body: dict[str, Any]) -> str:
    return RIGHT if "[rule] Always" in body["messages"][-1]["content"] else INVALID


def cured_by_size(body: dict[str, Any]) -> str:
    return RIGHT if body["model"] == "big" else INVALID


def cured_by_nothing(_body: dict[str, Any]) -> str:
    return INVALID


class Base:
    """An endpoint whose answer is a function of the request."""

    def __init__(self) -> None:
        self.answers: Answers = cured_by_nothing
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)

    async def complete(self, request: Request) -> dict[str, Any]:
        body = await request.json()
        message = {"role": "assistant", "content": self.answers(body)}
        words = sum(len(turn["content"].split()) for turn in body["messages"])
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1},
        }


@pytest.fixture
def base() -> Iterator[tuple[Base, str]]:
    base = Base()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(base.app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield base, f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join()


def submission(folder: Path, url: str, **changes: Any) -> AdaptationJob:
    """A job of distinct yes-or-no questions, with a corpus and a larger base."""

    def rows(name: str, count: int) -> str:
        path = folder / f"{name}.jsonl"
        lines = [
            {
                "id": f"{name}-{n}",
                "messages": [{"role": "user", "content": f"Is rule {n} of {name} good?"}],
                "expected": {"value": {"answer": "yes"}},
                "target": RIGHT,
            }
            for n in range(count)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path.as_uri()

    corpus = folder / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "rule", "text": "Always say that a rule is good."}))
    source = {"licence": "MIT", "provenance": {"source": "s"}}
    return job(
        base__model=str(build_tiny_llama(folder / "models" / "Tiny")),
        behaviour__scorer="json_schema",
        behaviour__output_schema=SCHEMA,
        behaviour__target=0.9,
        data=[source | {"uri": rows("train", 120)}],
        evaluation__dev__uri=rows("dev", ITEMS),
        evaluation__heldout__uri=rows("heldout", ITEMS),
        economics__price_per_mtok=1.0,
        ladder={
            "corpus": {"uri": corpus.as_uri()},
            "larger_base": {"model": "big", "url": url, "price_per_mtok": 10.0},
        },
        **changes,
    )


async def test_diagnose_asks_the_question_alone_and_explains_every_rung(
    settings: Settings, tmp_path: Path, base: tuple[Base, str]
) -> None:
    _, url = base
    settings = settings.model_copy(update={"serving_url": url})
    path, log = tmp_path / "job.json", tmp_path / "failures.jsonl"
    path.write_text(submission(tmp_path, url).model_dump_json(by_alias=True))
    traces = [case.trace for case in labelled("report")][:20]
    log.write_text("".join(trace.model_dump_json() + "\n" for trace in traces))
    environment = {"SLUICE_HOME": str(settings.home), "SLUICE_NATS_URL": settings.nats_url}

    async def sluice(*words: object) -> Any:
        return await asyncio.to_thread(
            CliRunner().invoke, cli, ["diagnose", *map(str, words)], env=environment
        )

    connection = await nats.connect(settings.nats_url)
    await provision(connection.jetstream())
    async with create_app(settings).running():
        told = await sluice(path, "--run", "told", "--explain", "--failures", log)
        machine = await sluice(path, "--run", "machine", "--json")
    run = await RunLog(connection.jetstream()).load(RunRef("demo", "told"))
    await connection.close()
    assert told.exit_code == 0, told.output
    assert [record.event.fact for record in run.log] == ["accepted", "concluded"]
    assert (run.status, run.job and run.job.stop_after) == ("diagnosed", "diagnosis")
    assert "no lighter rung reaches the target: lora would train" in told.stdout
    for rung in get_args(RungName):
        assert rung.replace("_", " ") in told.stdout
    assert "would train (lora)" in told.stdout
    assert "20 traces" in told.stdout
    assert "asking base" in told.stderr
    found = json.loads(machine.stdout)
    assert (found["status"], found["type"]) == ("diagnosed", "sluice.v1.diagnosis.concluded")
    assert found["verdict"]["choice"]["method"] == "lora"
    assert [line["rung"] for line in found["ladder"]] == list(get_args(RungName))
    assert found["failures"] is None


async def diagnosed(settings: Settings, submitted: AdaptationJob, name: str) -> Run:
    """The run once diagnosis has spoken."""
    ref = RunRef("demo", name)
    connection = await nats.connect(settings.nats_url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    async with create_app(settings).running():
        await jetstream.publish(
            subjects.command(ref.tenant, ref.run, "submit"),
            submitted.model_dump_json(by_alias=True).encode(),
            stream="JOBS",
        )
        async with asyncio.timeout(60):
            while len((run := await RunLog(jetstream).load(ref)).log) < 2:
                await asyncio.sleep(0.05)
    await connection.close()
    return run


@pytest.mark.req("D4")
@pytest.mark.parametrize(
    ("answers", "rung", "requests"),
    [
        pytest.param(cured_by_constraints, "structured_outputs", 1, id="constraints"),
        pytest.param(cured_by_complaints, "validators", 2, id="complaints"),
        pytest.param(cured_by_documents, "retrieval", 1, id="documents"),
        pytest.param(cured_by_size, "routing", 2, id="size"),
    ],
)
async def test_a_fault_that_a_lighter_rung_cures_ends_in_a_certificate_that_names_it(
    settings: Settings,
    tmp_path: Path,
    base: tuple[Base, str],
    answers: Answers,
    rung: str,
    requests: int,
) -> None:
    endpoint, url = base
    endpoint.answers = answers
    settings = settings.model_copy(update={"serving_url": url})
    run = await diagnosed(settings, submission(tmp_path, url), "cured")
    accepted, declined = (record.event for record in run.log)
    assert isinstance(accepted, RunAccepted)
    assert isinstance(declined, TrainingDeclined)
    assert (run.status, declined.rung) == ("declined", rung)
    assert not [record for record in run.log if record.event.service == "training"]
    results = {result.rung: result for result in declined.diagnosis.rungs}
    cure = results[declined.rung]
    assert cure.against_base.difference == 1.0
    assert cure.usage is not None
    assert cure.usage.requests == requests
    assert cure.usage.cost_per_success is not None
    assert cure.added_prompt_tokens >= 0
    envelope = ArtifactStore(settings.artifacts_url).get(declined.certificate)
    key = SigningKey.load_or_create(settings.home / "keys" / "diagnosis")
    statement = open_envelope(envelope, [key.public], predicate_type=CERTIFICATE_TYPE)
    assert statement.predicate["rung"] == rung


@pytest.mark.req("D4")
@pytest.mark.req("D9")
async def test_where_no_rung_helps_training_is_advised_alike_twice(
    settings: Settings, tmp_path: Path, base: tuple[Base, str]
) -> None:
    _, url = base
    settings = settings.model_copy(update={"serving_url": url})
    submitted = submission(tmp_path, url)
    runs = [await diagnosed(settings, submitted, name) for name in ("one", "two")]
    first, second = (run.log[1].event for run in runs)
    assert isinstance(first, TrainingAdvised)
    assert isinstance(second, TrainingAdvised)
    assert [r.rung for r in first.diagnosis.rungs] == [
        "prompt_revision",
        "few_shot",
        "structured_outputs",
        "validators",
        "retrieval",
        "routing",
        "model_selection",
    ]
    assert [r.success for r in first.diagnosis.rungs] == [r.success for r in second.diagnosis.rungs]
    assert first.choice == second.choice
    skipped = {s.rung for s in first.diagnosis.skipped}
    assert skipped == {"harness_changes", "memory", "tools"}

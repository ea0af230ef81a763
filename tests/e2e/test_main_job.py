"""The main job with a tiny real transformer: every service, a real broker, a signed adapter."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import nats
import pytest
import yaml

from contracts.job import GateId
from contracts.subjects import PREFIX
from tests.e2e.stack import TENANT, Stack, running_stack, write_job

pytestmark = [pytest.mark.timeout(420), pytest.mark.slow, pytest.mark.xdist_group("e2e")]

SERVICES = {
    "diagnosis",
    "curation",
    "training",
    "evaluation",
    "registry",
    "rollout",
    "serving",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack") / "home") as running:
        yield running


class Traffic:
    """Requests to the deployment, from when it exists until the block ends."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive)
        self.answered_by: set[str] = set()

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _drive(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                answer = self._stack.ask(f"request {number}", f"conversation-{number}")
            except OSError:
                continue
            if answer.status_code == 200:
                self.answered_by.add(answer.headers["x-sluice-model"])
            else:
                time.sleep(0.3)


async def longest_silence_s(stack: Stack, run: str) -> float:
    """Seconds between two neighbours among the run's facts and news, as the server dates them."""
    connection = await nats.connect(stack.nats_url)
    heard: list[float] = []
    for kind in ("run", "progress"):
        subscription = await connection.jetstream().subscribe(
            f"{PREFIX}.{kind}.{TENANT}.{run}.>", ordered_consumer=True
        )
        pending = 1
        while pending:
            message = await subscription.next_msg(timeout=5)
            heard.append(message.metadata.timestamp.timestamp())
            pending = message.metadata.num_pending
        await subscription.unsubscribe()
    await connection.close()
    heard.sort()
    return max(later - earlier for earlier, later in itertools.pairwise(heard))


async def follow(stack: Stack, run: str, until: set[str], timeout_s: float) -> list[str]:
    """Types of the run's facts, with nothing but nats-py, until one of `until` arrives."""
    connection = await nats.connect(stack.nats_url)
    facts: list[str] = []
    done = asyncio.Event()

    async def on_fact(message) -> None:
        facts.append(message.headers["ce-type"])
        verdict = json.loads(message.data).get("verdict", "passed")
        if facts[-1] in until or verdict != "passed":
            done.set()

    await connection.jetstream().subscribe(
        f"{PREFIX}.run.{TENANT}.{run}.>", ordered_consumer=True, cb=on_fact
    )
    async with asyncio.timeout(timeout_s):
        await done.wait()
    await connection.close()
    return facts


@pytest.mark.req("P2")
@pytest.mark.req("P5")
@pytest.mark.req("T1")
@pytest.mark.req("R4")
@pytest.mark.req("G10")
async def test_a_job_from_a_plain_nats_client_ends_in_a_verified_promoted_adapter(
    stack: Stack, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job")
    dry = stack.sluice("submit", str(job), "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    document = yaml.safe_load(job.read_text())
    for source in (*document["data"], *(document["evaluation"][n] for n in ("dev", "heldout"))):
        source["uri"] = (job.parent / source["uri"]).as_uri()

    connection = await nats.connect(stack.nats_url)
    await connection.jetstream().publish(
        f"{PREFIX}.job.{TENANT}.plain.submit", json.dumps(document).encode(), stream="JOBS"
    )
    await connection.close()
    with Traffic(stack) as traffic:
        ends = {"sluice.v1.registry.promoted", "sluice.v1.any.failed", "sluice.v1.rollout.held"}
        facts = await follow(stack, "plain", ends, 300)
    story = stack.story("plain")
    assert facts[-1] == "sluice.v1.registry.promoted", json.dumps(story, indent=1)[-4000:]
    assert facts.count("sluice.v1.evaluation.gate_judged") == len(get_args(GateId))
    assert {"base", "Tiny-answers-v1"} <= traffic.answered_by
    assert await longest_silence_s(stack, "plain") <= 5

    # the signed bundle verifies offline, and one flipped bit of weights or card does not
    folder = tmp_path / "card"
    key = str(stack.home / "keys" / "registry" / "signing-key.pub")
    assert stack.sluice("card", "plain", "--out", str(folder)).returncode == 0
    assert stack.sluice("verify", str(folder), "--key", key).returncode == 0
    for name in ("adapter/adapter_model.safetensors", "card.dsse.json"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        assert stack.sluice("verify", str(folder), "--key", key).returncode == 1, name
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    assert stack.sluice("verify", str(folder), "--key", key).returncode == 0

    # one trace spans the services of the run
    spans = [
        json.loads(line)
        for path in (stack.home / "traces").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    mine = [s for s in spans if s["attributes"].get("sluice.run") == "plain"]
    traces = {s["context"]["trace_id"] for s in mine}
    joined = [s for s in spans if s["context"]["trace_id"] in traces]
    services = {s["resource"]["attributes"]["service.name"] for s in joined}
    assert len(traces) == 1
    assert services >= SERVICES

    # the promoted adapter answers its deployment, and another tenant cannot see it
    assert stack.ask("anything", "c").headers["x-sluice-model"] == "Tiny-answers-v1"

    # withdrawn, it answers nobody, and a verifier that is offline can know
    withdrawn = stack.sluice("withdraw", "plain", "--kind", "revoked", "--reason", "a test")
    assert withdrawn.returncode == 0, withdrawn.stderr
    async with asyncio.timeout(30):
        while stack.ask("anything", "c").headers["x-sluice-model"] != "base":
            await asyncio.sleep(0.2)
    listed = stack.sluice("revocations", "--out", str(tmp_path / "revoked"))
    assert "a test" in listed.stdout, listed.stderr
    late = stack.sluice(
        "verify", str(folder), "--key", key, "--revocations", str(tmp_path / "revoked")
    )
    assert late.returncode == 1
    assert "is revoked: a test" in late.stdout


@pytest.mark.req("T4")
@pytest.mark.req("P3")
async def test_a_training_service_killed_in_mid_run_resumes_and_trains_once(
    stack: Stack, tmp_path: Path
) -> None:
    job = write_job(
        tmp_path / "job",
        name="killed",
        task_namespace="killed",
        method={"train": {"max_steps": 120, "seed": 1}},
        gates={"required": ["G1", "G2", "G3"]},
        rollout={"deployment": "killed"},
    )
    submitted = stack.sluice("submit", str(job), "--run", "killed")
    assert submitted.returncode == 0, submitted.stderr

    connection = await nats.connect(stack.nats_url)
    progress = await connection.subscribe(f"{PREFIX}.progress.{TENANT}.killed.training")
    async with asyncio.timeout(180):
        while True:
            news = json.loads((await progress.next_msg(timeout=120)).data)
            if news["done"] >= 12:
                break
    await connection.close()
    victim = stack.pid_of("training")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)

    ends = {"sluice.v1.registry.registered", "sluice.v1.any.failed", "sluice.v1.training.stopped"}
    facts = await follow(stack, "killed", ends, 240)
    assert facts[-1] == "sluice.v1.registry.registered", facts
    assert facts.count("sluice.v1.training.trained") == 1
    trained = [f for f in stack.story("killed")["facts"] if f["type"].endswith("training.trained")]
    assert trained[0]["data"]["resumed_from"] > 0
    assert stack.sluice("cancel", "killed").returncode == 0


@pytest.mark.req("D4")
async def test_a_job_whose_target_the_base_reaches_ends_in_a_certificate(
    stack: Stack, tmp_path: Path
) -> None:
    job = write_job(
        tmp_path / "job",
        name="easy",
        behaviour={"target": 0.01, "scorer": "regex"},
        rollout={"deployment": "easy"},
    )
    for name in ("dev", "heldout"):
        path = job.parent / f"{name}.jsonl"
        rows = [
            json.loads(line) | {"expected": "[\\s\\S]*"} for line in path.read_text().splitlines()
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    watched = stack.sluice("submit", str(job), "--run", "easy", "--watch")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    types = [fact["type"] for fact in stack.story("easy")["facts"]]
    assert types[-1] == "sluice.v1.diagnosis.train_declined"
    assert not any("training" in kind for kind in types)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"base": {"model": "absent"}}, "base.model", id="no-such-base"),
        pytest.param(
            {"data": [{"uri": "train.jsonl", "licence": "WTF-1", "provenance": {"source": "x"}}]},
            "data[0].licence",
            id="unknown-licence",
        ),
        pytest.param({"behaviour": {"scorer": "vibes"}}, "behaviour.scorer", id="unknown-scorer"),
    ],
)
async def test_a_job_that_cannot_start_is_rejected_with_its_field_and_mend(
    stack: Stack, tmp_path: Path, changes: dict, field: str, request: pytest.FixtureRequest
) -> None:
    run = request.node.callspec.id
    job = write_job(tmp_path / "job", **changes)
    watched = stack.sluice("submit", str(job), "--run", run, "--watch")
    assert watched.returncode == 3, watched.stdout + watched.stderr
    fact = stack.story(run)["facts"][-1]
    assert fact["type"] == "sluice.v1.diagnosis.rejected"
    assert field in [p["where"] for p in fact["data"]["problems"]]
    assert all(p["mend"] for p in fact["data"]["problems"])


async def test_a_second_job_under_one_run_id_is_refused_and_the_first_unharmed(
    stack: Stack, tmp_path: Path
) -> None:
    first = write_job(tmp_path / "first", base={"model": "absent"})
    assert stack.sluice("submit", str(first), "--run", "twice", "--watch").returncode == 3
    again = stack.sluice("submit", str(first), "--run", "twice")
    assert again.returncode == 1
    assert "twice" in again.stderr
    assert "mend" in again.stderr
    assert len(stack.story("twice")["facts"]) == 1

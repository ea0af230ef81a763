"""Programs that know only NATS, the subjects and the schemas take part in everything."""

from __future__ import annotations

import ast
import asyncio
import sys
from pathlib import Path

import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.diagnosis import RunAccepted
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.registry import AdapterPromoted
from contracts.remedies import Remedy
from contracts.subjects import RunRef
from shared.messaging.runlog import RunLog
from tests.cli.conftest import ROOT, SAMPLES

EXAMPLES = ROOT / "examples" / "plain-nats"


def sample(kind, name: str):
    return kind.model_validate_json((SAMPLES / f"{name}.json").read_text())


async def run_example(name: str, *arguments: object) -> asyncio.subprocess.Process:
    """Run away from the repository, so that nothing of it can be imported."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        EXAMPLES / name,
        *map(str, arguments),
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_imports_nothing_of_this_repository(path: Path) -> None:
    imported = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"nats"}


@pytest.mark.req("P2")
async def test_a_plain_client_submits_a_job_and_follows_it_to_its_end(js, nats_server) -> None:
    job = SAMPLES / "job.json"
    process = await run_example(
        "submit_and_follow.py", job, "--run", "plain", "--server", nats_server.url
    )
    assert (await process.stdout.readline()).strip() == b"submitted acme/plain"
    message = await js.get_last_msg("JOBS", subjects.command("acme", "plain", "submit"))
    assert AdaptationJob.model_validate_json(message.data).name == "tool-calls"

    ref, log = RunRef("acme", "plain"), RunLog(js)
    await log.append(ref, sample(RunAccepted, "diagnosis.accepted"), cause="c0")
    news = Progress(stage="training", message="step", done=1, total=4)
    await js.publish(
        subjects.progress("acme", "plain", "training"),
        news.model_dump_json().encode(),
        stream="PROGRESS",
    )
    await log.append(ref, sample(GateJudged, "evaluation.gate_judged"), cause="c1")
    await log.append(ref, sample(AdapterPromoted, "registry.promoted"), cause="c2")
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    text = out.decode()
    assert "G3 passed: success rises by 47.5 points" in text
    assert "training: step 1.0/4.0" in text
    assert text.rstrip().endswith("run acme/plain: promoted")

    again = await run_example(
        "submit_and_follow.py", job, "--run", "plain", "--server", nats_server.url
    )
    out, _ = await asyncio.wait_for(again.communicate(), 20)
    assert (again.returncode, out) == (1, b"run acme/plain exists already\n")


@pytest.mark.req("P2")
async def test_a_plain_client_follows_alerts_past_and_to_come(js, nats_server) -> None:
    alert = sample(Alert, "alert")

    async def publish(found: Alert) -> None:
        subject = subjects.alert(found.tenant, found.deployment, found.metric)
        await js.publish(subject, found.model_dump_json().encode(), stream="ALERTS")

    await publish(alert)
    await publish(alert.model_copy(update={"tenant": "other"}))
    process = await run_example(
        "follow_alerts.py", "acme", "--server", nats_server.url, "--count", 2
    )
    first = await asyncio.wait_for(process.stdout.readline(), 20)
    assert first.startswith(b"warning firing: assistant task_success = 0.88")
    await publish(alert.model_copy(update={"state": "resolved"}))
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"warning resolved")


@pytest.mark.req("M16")
@pytest.mark.req("P2")
async def test_a_plain_client_runs_a_program_for_what_is_due(js, nats_server, tmp_path) -> None:
    due = sample(Remedy, "remedy")
    for found in (
        due.model_copy(update={"remedy": "audit_memory"}),
        due.model_copy(update={"tenant": "other"}),
        due,
        due.model_copy(update={"state": "over"}),
    ):
        subject = subjects.remedy(found.tenant, found.deployment, found.remedy)
        await js.publish(subject, found.model_dump_json().encode(), stream="REMEDIES")
    wanted = ("--remedy", "rehearse", "--count", 2, "--run", "tee", "-a", tmp_path / "done")
    process = await run_example("act_on_remedies.py", "acme", "--server", nats_server.url, *wanted)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    assert b"3: due rehearse: assistant" in out
    assert b"4: over rehearse" in out
    assert Remedy.model_validate_json((tmp_path / "done").read_bytes()) == due


def test_the_endings_of_the_example_are_those_of_the_run_log() -> None:
    """A new closing fact must be added to the example."""
    from tests.cli.test_story import run_of

    source = (EXAMPLES / "submit_and_follow.py").read_text()
    names = [path.stem for path in SAMPLES.glob("*.json") if f"sluice.v1.{path.stem}" in _types()]
    closing = {name for name in names if run_of("diagnosis.accepted", name).closed}
    assert closing == {name for name in names if f'"sluice.v1.{name}": "' in source}


def _types() -> set[str]:
    from contracts.catalog import EVENTS

    return set(EVENTS)

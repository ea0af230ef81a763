"""The commands against a real broker, as processes."""

from __future__ import annotations

import asyncio
import json

import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.commands import Cancel
from contracts.diagnosis import RunAccepted, RunCancelled, RunRejected
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.registry import AdapterPromoted
from contracts.remedies import Remedy
from contracts.rollout import RolledBack
from contracts.subjects import RunRef
from shared.artifacts import ArtifactStore, Pinned
from shared.messaging.runlog import RunLog
from tests.cli.conftest import SAMPLES

REF = RunRef("demo", "r1")


def sample(kind, name: str):
    return kind.model_validate_json((SAMPLES / f"{name}.json").read_text())


ACCEPTED = sample(RunAccepted, "diagnosis.accepted")
PROMOTED = sample(AdapterPromoted, "registry.promoted")
REJECTED = sample(RunRejected, "diagnosis.rejected")
ROLLED_BACK = sample(RolledBack, "rollout.rolled_back")


async def until(condition, timeout_s: float = 20.0):
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


@pytest.mark.req("P8")
async def test_submit_publishes_the_pinned_job_and_refuses_the_same_run_twice(
    sluice, js, job_folder, settings
) -> None:
    done = await sluice("submit", job_folder / "job.yaml", "--run", "r1", "--json")
    assert (done.code, done.err) == (0, "")
    message = await js.get_last_msg("JOBS", subjects.command("demo", "r1", "submit"))
    job = AdaptationJob.model_validate_json(message.data)
    store = ArtifactStore(settings.artifacts_url)
    assert (
        store.get(Pinned.parse(job.data[0].uri).digest) == (job_folder / "train.jsonl").read_bytes()
    )
    assert message.headers["traceparent"] == done.json["traceparent"]
    assert message.headers["ce-type"] == "sluice.v1.job.submit"

    again = await sluice("submit", job_folder / "job.yaml", "--run", "r1")
    assert again.code == 1
    assert "error: a job was already submitted as demo/r1" in again.err
    assert "mend: choose another --run" in again.err
    assert (await js.stream_info("JOBS")).state.messages == 1


async def test_a_corpus_is_stored_like_every_other_file_of_a_job(
    sluice, js, job_folder, settings
) -> None:
    corpus, path = job_folder / "corpus.jsonl", job_folder / "job.yaml"
    path.write_text(path.read_text() + "ladder: {corpus: {uri: corpus.jsonl}}\n")
    corpus.write_text('{"id": "a"}\n')
    refused = await sluice("submit", path, "--run", "r1")
    assert refused.code == 2
    assert "corpus.jsonl:1: text: Field required" in refused.err
    assert "sluice schema document" in refused.err
    corpus.write_text('{"id": "a", "text": "b"}\n')
    assert (await sluice("submit", path, "--run", "r1")).code == 0
    message = await js.get_last_msg("JOBS", subjects.command("demo", "r1", "submit"))
    job = AdaptationJob.model_validate_json(message.data)
    stored = ArtifactStore(settings.artifacts_url).get(Pinned.parse(job.ladder.corpus.uri).digest)
    assert stored == corpus.read_bytes()


async def test_two_submits_of_one_run_at_once_have_one_winner(start, js, job_folder) -> None:
    path = job_folder / "job.yaml"
    racers = [await start("submit", path, "--run", "race") for _ in range(3)]
    assert sorted([await racer.wait() for racer in racers]) == [0, 1, 1]


async def test_a_dry_run_needs_no_broker_and_publishes_nothing(sluice, js, job_folder) -> None:
    done = await sluice(
        "--nats-url", "nats://127.0.0.1:1", "submit", job_folder / "job.yaml", "--dry-run"
    )
    assert done.code == 0
    assert "nothing was submitted" in done.out
    assert (await js.stream_info("JOBS")).state.messages == 0


async def test_an_invalid_job_exits_2_with_the_line_and_the_mend(sluice, job_folder) -> None:
    path = job_folder / "job.yaml"
    path.write_text(path.read_text().replace("scorer:", "scorrer:"))
    done = await sluice("submit", path)
    assert done.code == 2
    assert "error: job.yaml:8: behaviour.scorrer: is not a field of a job" in done.err
    assert "mend: did you mean `scorer`?" in done.err
    assert done.out == ""


async def test_a_job_of_another_tenant_is_refused(sluice, job_folder) -> None:
    done = await sluice("submit", job_folder / "job.yaml", "--tenant", "acme")
    assert done.code == 2
    assert "you act as 'acme'" in done.err


@pytest.mark.parametrize("command", [("runs",), ("watch", "r1"), ("alerts",), ("dead", "list")])
async def test_a_broker_that_is_away_exits_69(sluice, command) -> None:
    done = await sluice("--nats-url", "nats://127.0.0.1:1", *command)
    assert done.code == 69
    assert "error: the broker at nats://127.0.0.1:1 cannot be reached" in done.err
    assert "mend: start it with `sluice up`" in done.err


async def test_a_broker_without_streams_says_provision(sluice, nats_server) -> None:
    done = await sluice("runs")
    assert done.code == 1
    assert "sluice provision" in done.err
    assert (await sluice("provision")).code == 0
    assert (await sluice("provision")).code == 0
    assert (await sluice("runs", "--json")).out == ""


@pytest.mark.req("P8")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param(PROMOTED, 0, id="promoted"),
        pytest.param(REJECTED, 3, id="rejected"),
        pytest.param(ROLLED_BACK, 4, id="rolled back"),
        pytest.param(RunCancelled(reason="enough"), 5, id="cancelled"),
    ],
)
async def test_watch_follows_facts_and_progress_and_exits_by_the_outcome(
    start, js, ending, code
) -> None:
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    process = await start("watch", "demo/r1", "--json")
    first = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert (first["kind"], first["type"]) == ("fact", "sluice.v1.diagnosis.accepted")
    news = Progress(stage="training", message="step", done=3, total=4)
    await js.publish(
        subjects.progress("demo", "r1", "training"),
        news.model_dump_json().encode(),
        stream="PROGRESS",
    )
    second = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert (second["kind"], second["done"]) == ("progress", 3)
    await log.append(REF, ending, cause="c1")
    out, err = await asyncio.wait_for(process.communicate(), 20)
    *_, last = [json.loads(line) for line in out.splitlines()]
    assert (last["kind"], last["exit_code"], process.returncode) == ("outcome", code, code)
    assert err == b""


async def test_watch_survives_a_restart_of_the_broker(start, js, nats_server) -> None:
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    process = await start("watch", "r1")
    await asyncio.wait_for(process.stdout.readline(), 20)
    nats_server.kill()
    await nats_server.start()
    await until(lambda: _append(log, PROMOTED))
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert "promoted: it serves assistant" in out.decode()
    assert process.returncode == 0


async def _append(log, event) -> bool:
    from shared.errors import TransientError

    try:
        await log.append(REF, event, cause="c1")
    except TransientError:
        return False
    return True


async def test_submit_and_watch_in_one_go(start, js, job_folder) -> None:
    process = await start("submit", job_folder / "job.yaml", "--run", "r1", "--watch")

    async def submitted() -> bool:
        return (await js.stream_info("JOBS")).state.messages == 1

    await until(submitted)
    await RunLog(js).append(REF, ACCEPTED, cause="c0")
    await RunLog(js).append(REF, REJECTED, cause="c1")
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 3
    assert "run demo/r1 submitted" in out.decode()
    assert "mend: remove the source, or allow it in curation.licences" in out.decode()


async def test_an_unknown_run_is_an_error_with_a_mend(sluice, js) -> None:
    for command in ("watch", "show", "cancel", "card"):
        done = await sluice(command, "nobody")
        assert done.code == 1
        assert "error: there is no run demo/nobody\nmend: list them with `sluice runs`" in done.err
    assert (await sluice("show", "no.dots")).code == 2


async def test_runs_and_show_tell_the_story(sluice, js, job_folder) -> None:
    assert (await sluice("submit", job_folder / "job.yaml", "--run", "r0")).code == 0
    log = RunLog(js)
    for index, event in enumerate((ACCEPTED, ROLLED_BACK)):
        await log.append(REF, event, cause=f"c{index}")
    await log.append(RunRef("other", "x"), ACCEPTED, cause="c")
    rows = (await sluice("runs", "--json")).lines
    assert [(row["run"], row["status"]) for row in rows] == [
        ("r0", "submitted"),
        ("r1", "rolled_back"),
    ]
    assert len((await sluice("runs", "--all", "--json")).lines) == 3
    text = (await sluice("show", "r1")).out
    assert "✗ rolled back to base" in text
    assert "mend: see the failing requests in the alert, then retrain" in text
    document = (await sluice("show", "demo/r1", "--json")).json
    assert document["status"] == "rolled_back"
    assert [fact["type"] for fact in document["facts"]] == [
        "sluice.v1.diagnosis.accepted",
        "sluice.v1.rollout.rolled_back",
    ]


async def test_a_log_that_cannot_be_read_hides_no_other_run(sluice, js) -> None:
    await RunLog(js).append(REF, ACCEPTED, cause="c0")
    bad = subjects.fact("demo", "bad", ACCEPTED)
    await js.publish(bad, b"{", stream="RUN", headers={"ce-type": ACCEPTED.type_name()})
    rows = {row["run"]: row["status"] for row in (await sluice("runs", "--json")).lines}
    assert rows == {"r1": "active", "bad": "unreadable"}
    assert (await sluice("show", "bad")).code == 0


async def test_cancel_publishes_and_a_closed_run_cannot_be_cancelled(sluice, js) -> None:
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    assert (await sluice("cancel", "r1", "--reason", "enough")).code == 0
    message = await js.get_last_msg("JOBS", subjects.command("demo", "r1", "cancel"))
    assert Cancel.model_validate_json(message.data) == Cancel(reason="enough")
    assert (await sluice("retry", "r1")).code == 1
    assert (await sluice("approve", "r1")).code == 0
    await log.append(REF, RunCancelled(), cause="c1")
    done = await sluice("cancel", "r1")
    assert done.code == 1
    assert "run demo/r1 is cancelled: there is nothing to cancel" in done.err
    assert (await sluice("retry", "r1")).code == 0
    assert await js.get_last_msg("JOBS", subjects.command("demo", "r1", "retry"))


async def test_retry_and_watch_shows_only_the_new_attempt(start, js) -> None:
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    await log.append(REF, REJECTED, cause="c1")
    process = await start("retry", "r1", "--watch", "--json")
    published = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert published["command"] == "retry"
    await asyncio.sleep(1.5)
    assert process.returncode is None
    await log.append(REF, ACCEPTED.model_copy(update={"attempt": 2}), cause="c2", reopen=True)
    await log.append(REF, PROMOTED, cause="c3")
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line.get("type") for line in lines if line["kind"] == "fact"] == [
        "sluice.v1.diagnosis.accepted",
        "sluice.v1.registry.promoted",
    ]
    assert process.returncode == 0


async def test_alerts_of_a_tenant_past_and_to_come(start, sluice, js) -> None:
    alert = sample(Alert, "alert")

    async def publish(found: Alert) -> None:
        subject = subjects.alert(found.tenant, found.deployment, found.metric)
        await js.publish(subject, found.model_dump_json().encode(), stream="ALERTS")

    await publish(alert)
    await publish(alert.model_copy(update={"tenant": "demo"}))
    done = await sluice("alerts", "--tenant", "acme")
    assert "WARNING firing: acme/assistant task_success 0.88" in done.out
    assert "demo/assistant" not in done.out
    assert "remediation: route back" in done.out
    process = await start("alerts", "--all", "--follow", "--json")
    for _ in range(2):
        await asyncio.wait_for(process.stdout.readline(), 20)
    await publish(alert.model_copy(update={"state": "resolved"}))
    line = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert line["state"] == "resolved"
    process.terminate()
    await process.communicate()


@pytest.mark.req("M16")
async def test_remedies_say_what_has_to_be_done_and_by_whom(sluice, js) -> None:
    due = sample(Remedy, "remedy")
    for found in (due, due.model_copy(update={"remedy": "withdraw", "by": "platform"})):
        subject = subjects.remedy(found.tenant, found.deployment, found.remedy)
        await js.publish(subject, found.model_dump_json().encode(), stream="REMEDIES")
    done = await sluice("remedies", "--tenant", "acme")
    assert "due: rehearse of acme/assistant" in done.out
    assert "regression_rate; for whoever does it)" in done.out
    assert "due: withdraw of acme/assistant" in done.out
    assert "done by the platform" in done.out
    assert (await sluice("remedies", "--tenant", "demo")).out == "no remedies\n"


@pytest.mark.req("P4")
async def test_a_dead_command_is_listed_shown_and_replayed(sluice, js) -> None:
    subject = subjects.command("demo", "r9", "cancel")
    await js.publish(
        subjects.dead("diagnosis"),
        b'{"reason": ""}',
        stream="DEAD",
        headers={
            "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            "sluice-dead-subject": subject,
            "sluice-dead-stream": "JOBS",
            "sluice-dead-error": "Malformed",
            "sluice-dead-reason": "no such run",
        },
    )
    [row] = (await sluice("dead", "list", "--json")).lines
    assert (row["service"], row["reason"], row["subject"]) == ("diagnosis", "no such run", subject)
    number = row["number"]
    assert '{"reason": ""}' in (await sluice("dead", "show", number)).out
    assert (await sluice("dead", "show", number + 1)).code == 1
    assert (await sluice("dead", "replay")).code == 2
    assert (await sluice("dead", "replay", number)).code == 0
    message = await js.get_last_msg("JOBS", subject)
    assert message.data == b'{"reason": ""}'
    assert message.headers["traceparent"].startswith("00-1")
    assert not any(name.startswith("sluice-dead") for name in message.headers)
    assert (await sluice("dead", "list")).out == "no dead letters\n"


async def test_replaying_a_dead_fact_of_a_closed_run_asks_for_another_attempt(sluice, js) -> None:
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    run = await log.append(REF, REJECTED, cause="c1")
    await js.publish(
        subjects.dead("training"),
        ACCEPTED.model_dump_json(by_alias=True).encode(),
        stream="DEAD",
        headers={
            "sluice-dead-subject": subjects.fact("demo", "r1", ACCEPTED),
            "sluice-dead-stream": "RUN",
        },
    )
    done = await sluice("dead", "replay", "--all")
    assert "asked for another attempt" in done.out
    assert await js.get_last_msg("JOBS", subjects.command("demo", "r1", "retry"))
    assert (await log.load(REF)).version == run.version


async def test_card_fetches_the_promoted_bundle(sluice, js, settings, tmp_path) -> None:
    source = tmp_path / "bundle"
    (source / "adapter").mkdir(parents=True)
    (source / "card.dsse.json").write_text("{}")
    (source / "adapter" / "adapter_config.json").write_text("{}")
    bundle = ArtifactStore(settings.artifacts_url).put_tree(source)
    log = RunLog(js)
    await log.append(REF, ACCEPTED, cause="c0")
    assert "has no signed card" in (await sluice("card", "r1")).err
    await log.append(REF, PROMOTED.model_copy(update={"bundle": bundle}), cause="c1")
    out = tmp_path / "out"
    done = await sluice("card", "r1", "--out", out, "--json")
    assert done.json["files"] == ["adapter/adapter_config.json", "card.dsse.json"]
    assert (out / "adapter" / "adapter_config.json").read_text() == "{}"
    assert (await sluice("card", "r1", "--out", out)).code == 0
    assert (await sluice("card", "r1", "--out", source)).code == 2


async def test_doctor_finds_what_is_wrong_and_how_to_mend_it(sluice, js) -> None:
    rows = {row["what"]: row for row in (await sluice("doctor", "--json")).lines}
    assert rows["consumers"]["state"] == "ok"
    assert rows["stream RUN"]["state"] == "ok"
    assert rows["training"]["state"] == "warning"
    await js.delete_consumer("RUN", "training-train")
    await js.delete_stream("ALERTS")
    done = await sluice("doctor", "--json")
    rows = {row["what"]: row for row in done.lines}
    assert done.code == 1
    assert rows["stream ALERTS"]["state"] == rows["consumer training-train"]["state"] == "bad"
    assert rows["stream ALERTS"]["mend"] == "run `sluice provision`"


async def test_schemas_are_printed(sluice) -> None:
    assert "job" in (await sluice("schema")).out.split()
    assert (await sluice("schema", "job")).json["title"] == "AdaptationJob"
    assert (await sluice("schema", "--asyncapi")).json["asyncapi"] == "3.0.0"
    assert (await sluice("schema", "nothing")).code == 2

"""The console over HTTP, fed by a real nats-server."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from contracts import subjects
from contracts.alerts import Alert
from contracts.base import Service
from contracts.diagnosis import RunCancelled
from contracts.fault import StepFailed
from contracts.progress import Progress
from contracts.rollout import RolloutHeld, StageJudged, StageStarted
from contracts.subjects import RunRef
from services.console import access
from services.console.app import create_app
from services.console.settings import ConsoleSettings
from shared.errors import Misconfigured
from shared.messaging.embedded import free_port
from shared.testing.runs import healthy_job, healthy_run_events

REF = RunRef("acme", "tool-calls-1")
EVENTS = healthy_run_events()
CANARY = StageStarted(
    deployment="assistant",
    adapter_id="SmolLM2-135M-Instruct-tool_calls-v1",
    stage="canary",
    percent=10,
    since=1,
    outcomes=50,
    requests=500,
    detects="50 outcomes: a success of 66% or less would show",
)
SHADOW = next(n for n, event in enumerate(EVENTS) if isinstance(event, StageJudged))
IN_CANARY = [*EVENTS[: SHADOW + 1], CANARY]
HELD = RolloutHeld(
    deployment="assistant", adapter_id=CANARY.adapter_id, reason="held by hand", mend="approve"
)
HOSTILE = "<script>alert(1)</script>"


async def eventually(client: httpx.AsyncClient, path: str, holds, timeout_s: float = 15.0):
    async with asyncio.timeout(timeout_s):
        while True:
            answer = await client.get(path)
            if answer.status_code == 200 and holds(answer):
                return answer
            await asyncio.sleep(0.05)


@pytest.mark.req("P8")
async def test_a_run_is_told_from_its_first_fact_to_promotion(browser, put) -> None:
    await put(REF, *healthy_run_events())
    await eventually(browser, "/api/runs", lambda a: a.json() and a.json()[0]["status"] != "active")
    story = (await browser.get("/api/runs/acme/tool-calls-1")).json()
    assert {stage["state"] for stage in story["rail"]} == {"done", "skipped"}
    assert len(story["facts"]) == len(healthy_run_events())
    page = (await browser.get("/runs/acme/tool-calls-1")).text
    for shown in ("SmolLM2-135M-Instruct-tool_calls-v1", "G3", "+0.613", "[+0.533, +0.693]"):
        assert shown in page
    assert "<svg" in page
    assert "tool-calls-1" in (await browser.get("/")).text
    assert (await browser.get("/healthz")).json() == {"status": "ok", "runs": 1}


@pytest.mark.req("P8")
async def test_a_new_fact_reaches_an_open_page_and_an_open_api_stream(browser, put) -> None:
    await put(REF, healthy_run_events()[0])
    await eventually(browser, "/api/runs", lambda a: a.json())
    async with (
        browser.stream("GET", "/live/runs/acme/tool-calls-1") as page,
        browser.stream("GET", "/api/runs/acme/tool-calls-1/facts") as api,
    ):
        assert page.headers["content-type"].startswith("text/event-stream")
        fragments, facts = page.aiter_lines(), api.aiter_lines()
        await _read_until(fragments, "Job accepted")
        await _read_until(facts, '"sluice.v1.diagnosis.accepted"')
        await put(REF, healthy_run_events()[1])
        await _read_until(fragments, "Training advised by lora")
        await _read_until(facts, '"sluice.v1.diagnosis.train_advised"')


async def _read_until(lines, text: str) -> str:
    async with asyncio.timeout(10):
        async for line in lines:
            if text in line:
                return line
    raise AssertionError(f"the stream ended before {text!r}")


async def test_a_stream_taken_up_again_goes_on_after_the_last_fact_seen(browser, put) -> None:
    await put(REF, *healthy_run_events()[:3])
    found = await eventually(
        browser,
        "/api/runs/acme/tool-calls-1",
        lambda a: len(a.json()["facts"]) == 3,
    )
    second = found.json()["facts"][1]["seq"]
    async with browser.stream(
        "GET", "/api/runs/acme/tool-calls-1/facts", headers={"Last-Event-ID": str(second)}
    ) as api:
        line = await _read_until(api.aiter_lines(), "data: ")
    assert "curation.curated" in line


@pytest.mark.req("P8")
async def test_progress_shows_as_a_bar_with_its_numbers(browser, put, jetstream) -> None:
    await put(REF, *healthy_run_events()[:4])
    await eventually(browser, "/api/runs", lambda a: a.json())
    news = Progress(stage="training", message="epoch 1", done=30, total=120, values={"loss": 0.5})
    await jetstream.publish(
        subjects.progress(REF.tenant, REF.run, "training"),
        news.model_dump_json().encode(),
        stream="PROGRESS",
    )
    page = await eventually(browser, "/runs/acme/tool-calls-1", lambda a: "<progress" in a.text)
    assert '<progress max="120.0" value="30.0"' in page.text
    assert "loss" in page.text


@pytest.mark.req("P8")
async def test_alerts_are_listed_and_a_resolved_one_says_so(browser, jetstream) -> None:
    for state in ("firing", "resolved"):
        alert = Alert(
            id="incident-1",
            tenant="acme",
            deployment="assistant",
            metric="task_success",
            severity="critical",
            state=state,
            value=0.8,
            threshold=0.9,
            window="last 100 requests",
            n=100,
            model="base",
            remediation=HOSTILE,
            at=time.time(),
        )
        await jetstream.publish(
            subjects.alert("acme", "assistant", "task_success"),
            alert.model_dump_json().encode(),
            stream="ALERTS",
        )
        await eventually(
            browser, "/api/alerts", lambda a, s=state: [x["state"] for x in a.json()] == [s]
        )
    page = (await browser.get("/alerts")).text
    assert "resolved" in page
    assert HOSTILE not in page


@pytest.mark.req("G9")
async def test_a_stage_shows_its_plan_and_the_alerts_on_its_adapter(
    browser, put, jetstream
) -> None:
    await put(REF, *IN_CANARY)
    for number, model in enumerate((CANARY.adapter_id, "base")):
        alert = Alert(
            id=f"incident-{number}",
            tenant="acme",
            deployment="assistant",
            metric="grounding",
            severity="warning",
            state="firing",
            value=0.7,
            threshold=0.8,
            window="last 100 requests",
            n=100,
            model=model,
            evidence=(f"request-of-{number}",),
            remediation="lower the temperature",
            at=time.time(),
        )
        await jetstream.publish(
            subjects.alert("acme", "assistant", "grounding"),
            alert.model_dump_json().encode(),
            stream="ALERTS",
        )
    await eventually(browser, "/api/alerts", lambda a: len(a.json()) == 2)
    page = await eventually(
        browser, "/runs/acme/tool-calls-1", lambda a: "Canary 10% on assistant" in a.text
    )
    assert CANARY.detects in page.text
    assert "<dd>500</dd>" in page.text
    assert "request-of-0" in page.text
    assert "request-of-1" not in page.text
    for verb in ("hold", "rollback", "cancel"):
        assert f'id="{verb}"' in page.text
    assert 'id="approve"' not in page.text


async def test_hostile_text_in_names_and_messages_is_escaped(browser, put, jetstream) -> None:
    behaviour = healthy_job().behaviour.model_copy(update={"description": HOSTILE})
    job = healthy_job().model_copy(update={"behaviour": behaviour})
    await put(REF, healthy_run_events(job=job)[0])
    await put(
        REF,
        StepFailed(
            where=Service.TRAINING, step=HOSTILE, error=HOSTILE, message=HOSTILE, mend=HOSTILE
        ),
    )
    accepted = await jetstream.get_msg("RUN", seq=1)
    hostile_run = '"<img src=x onerror=x()'.replace(" ", "\u00a0")
    await jetstream.publish(
        f"sluice.v1.run.acme.{hostile_run}.diagnosis.accepted",
        accepted.data,
        stream="RUN",
        headers={k: v for k, v in accepted.headers.items() if not k.startswith("Nats-")},
    )
    await eventually(browser, "/api/runs", lambda a: len(a.json()) == 2)
    for path in ("/", "/runs/acme/tool-calls-1"):
        page = (await browser.get(path)).text
        assert "&lt;script&gt;" in page
        assert HOSTILE not in page
        assert "<img src=x" not in page.replace("\u00a0", " ")
    row = next(r for r in (await browser.get("/api/runs")).json() if r["run"] == hostile_run)
    assert row["run"] == hostile_run
    assert (await browser.post(f"/api/runs/acme/{hostile_run}/cancel")).status_code == 404


async def test_pages_forbid_inline_scripts_and_framing(browser) -> None:
    policy = (await browser.get("/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    page = (await browser.get("/")).text
    assert "<script>" not in page
    assert " style=" not in page
    assert "http" not in page.replace("<!doctype html>", "")


@pytest.mark.req("P8")
@pytest.mark.parametrize(
    ("events", "verb"),
    [
        pytest.param(healthy_run_events()[:4], "cancel", id="cancel a running one"),
        pytest.param([healthy_run_events()[0], RunCancelled()], "retry", id="retry an ended one"),
        pytest.param(IN_CANARY, "hold", id="hold a canary"),
        pytest.param(IN_CANARY, "rollback", id="roll a canary back"),
        pytest.param([*IN_CANARY, HELD], "approve", id="approve a held one"),
        pytest.param([*IN_CANARY, HELD], "rollback", id="roll a held one back"),
    ],
)
async def test_a_button_publishes_the_command(browser, put, jetstream, events, verb) -> None:
    await put(REF, *events)
    page = await eventually(
        browser,
        "/runs/acme/tool-calls-1",
        lambda a: f'action="/runs/acme/tool-calls-1/{verb}"' in a.text,
    )
    assert "<button" in page.text
    origin = str(browser.base_url).rstrip("/")
    answer = await browser.post(
        f"/runs/acme/tool-calls-1/{verb}",
        headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"},
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/acme/tool-calls-1")
    message = await jetstream.get_last_msg("JOBS", subjects.command("acme", "tool-calls-1", verb))
    assert isinstance(json.loads(message.data), dict)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "https://evil.example"}, id="another origin"),
        pytest.param({"Origin": "null"}, id="an opaque origin"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="cross-site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="a sibling site"),
    ],
)
async def test_another_sites_page_cannot_command_a_run(browser, put, jetstream, headers) -> None:
    await put(REF, healthy_run_events()[0])
    await eventually(browser, "/api/runs", lambda a: a.json())
    answer = await browser.post("/api/runs/acme/tool-calls-1/cancel", headers=headers)
    assert answer.status_code == 403
    assert (await jetstream.stream_info("JOBS")).state.messages == 0


async def test_a_host_name_pointed_at_the_loopback_is_refused(browser) -> None:
    assert (await browser.get("/", headers={"Host": "evil.example"})).status_code == 400


async def test_a_command_that_makes_no_sense_now_is_refused(browser, put) -> None:
    await put(REF, *healthy_run_events())
    await eventually(browser, "/api/runs", lambda a: a.json() and a.json()[0]["status"] != "active")
    assert (await browser.post("/api/runs/acme/tool-calls-1/cancel")).status_code == 409
    assert (await browser.post("/api/runs/acme/tool-calls-1/dance")).status_code == 422
    assert (await browser.post("/api/runs/acme/unknown/cancel")).status_code == 404
    assert (await browser.get("/runs/acme/*")).status_code == 404


async def test_a_forgotten_run_is_read_from_its_log(browser, put) -> None:
    await put(REF, *healthy_run_events())
    for n in range(20):
        await put(RunRef("acme", f"later-{n}"), healthy_run_events()[0])
    later = {f"later-{n}" for n in range(20)}
    await eventually(browser, "/api/runs", lambda a: {row["run"] for row in a.json()} == later)
    story = (await browser.get("/api/runs/acme/tool-calls-1")).json()
    assert story["summary"]["status"] == "promoted"


@pytest.mark.req("P3")
async def test_the_console_goes_on_after_a_broker_restart(browser, put, nats_server) -> None:
    await put(REF, *healthy_run_events()[:2])
    await eventually(browser, "/api/runs", lambda a: a.json())
    nats_server.kill()
    assert (await browser.get("/")).status_code == 200
    await nats_server.start()
    await asyncio.sleep(2.5)
    await put(REF, healthy_run_events()[2])
    await eventually(
        browser,
        "/api/runs/acme/tool-calls-1",
        lambda a: len(a.json()["facts"]) == 3,
        timeout_s=40,
    )


async def test_an_unreadable_message_is_passed_over(browser, put, jetstream) -> None:
    await jetstream.publish("sluice.v1.run.acme.bad.diagnosis.accepted", b"\xff", stream="RUN")
    await jetstream.publish("sluice.v1.alert.a.b.c", b"{}", stream="ALERTS")
    await put(REF, healthy_run_events()[0])
    await eventually(browser, "/api/runs", lambda a: len(a.json()) == 1)


class TestWithAToken:
    """A console that other machines could reach."""

    @pytest.fixture
    def console_settings(self) -> ConsoleSettings:
        return ConsoleSettings(port=free_port(), token="open sesame")

    async def test_nothing_is_shown_without_the_token(self, browser) -> None:
        assert (await browser.get("/api/runs")).status_code == 401
        assert (await browser.get("/live/runs")).headers["location"] == "/login"
        assert (await browser.get("/")).headers["location"] == "/login"
        assert (await browser.get("/healthz")).status_code == 200
        wrong = {"Authorization": "Bearer open"}
        assert (await browser.get("/api/runs", headers=wrong)).status_code == 401

    async def test_the_token_opens_it_as_a_header_and_as_a_session(self, browser) -> None:
        right = {"Authorization": "Bearer open sesame"}
        assert (await browser.get("/api/runs", headers=right)).status_code == 200
        assert (await browser.post("/login", data={"token": "wrong"})).status_code == 401
        answer = await browser.post("/login", data={"token": "open sesame"})
        cookie = answer.headers["set-cookie"]
        assert access.COOKIE in cookie
        assert "HttpOnly" in cookie
        assert "strict" in cookie.lower()
        assert "sesame" not in cookie
        assert (await browser.get("/")).status_code == 200


def test_a_console_open_to_other_machines_needs_a_token(settings) -> None:
    with pytest.raises(Misconfigured, match="without a token"):
        create_app(settings, ConsoleSettings(host="0.0.0.0"))

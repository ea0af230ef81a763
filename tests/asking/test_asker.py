from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from contracts.data import Message, Row
from shared.asking import Asker, AskOptions, Retry, call_text, chat_messages
from shared.errors import PeerUnavailable, PermanentError
from shared.scoring import parse_call, validator_for

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}


class Endpoint:
    """A small endpoint that behaves as the API does; `model` picks what happens."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy_left = 2
        self.at_once = self.most_at_once = 0
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)

    async def complete(self, request: Request) -> JSONResponse:
        import asyncio

        body = await request.json()
        self.seen.append(body)
        self.headers.append(dict(request.headers))
        model = body["model"]
        if model == "busy" and self.busy_left:
            self.busy_left -= 1
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.3"})
        if model == "down":
            return JSONResponse({"error": {"message": "restarting"}}, 503)
        if model == "unknown":
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        message: dict[str, Any] = {"role": "assistant", "content": body["messages"][-1]["content"]}
        if model == "caller":
            function = {"name": "add", "arguments": '{"a": 1}'}
            calls = [{"id": "c", "type": "function", "function": function}]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        if model == "careless":
            told = str(body["messages"][-1]["content"]).startswith("That answer cannot be used")
            text = '{"name": "add", "arguments": {"a": 1}}' if told else "one"
            message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
        return JSONResponse({**answer, "choices": [choice], "usage": usage})


@pytest.fixture
def endpoint() -> Iterator[tuple[Endpoint, str]]:
    endpoint = Endpoint()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(endpoint.app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield endpoint, f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        thread.join()


def row(text: str = "hi", **more: Any) -> Row:
    system = Message(role="system", content="Be brief.")
    return Row(id=text, messages=(system, Message(role="user", content=text)), **more)


async def test_a_row_gets_an_answer_with_its_numbers(endpoint: tuple[Endpoint, str]) -> None:
    async with Asker(endpoint[1]) as asker:
        answer = await asker.ask(row("hi"), model="echo")
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("hi", 7, 3)
    assert answer.finish_reason == "stop"
    assert 15 < answer.latency_ms < 5000
    assert not answer.cached


async def test_options_and_tools_reach_the_endpoint(endpoint: tuple[Endpoint, str]) -> None:
    options = AskOptions(
        system_prompt="New.",
        max_tokens=9,
        temperature=1.0,
        top_p=0.95,
        seed=3,
        constrain_calls=True,
        extra_headers={"X-Sluice-Tenant": "demo"},
    )
    async with Asker(endpoint[1], api_key="secret") as asker:
        await asker.ask(row("hi", tools=(TOOL,)), model="echo", options=options)
    (body,), (headers,) = endpoint[0].seen, endpoint[0].headers
    assert body["messages"][0] == {"role": "system", "content": "New."}
    assert body["tools"] == [TOOL]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (9, 1, 0.95, 3)
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["name"] == {"const": "add"}
    assert headers["x-sluice-tenant"] == "demo"
    assert headers["authorization"] == "Bearer secret"


def test_exemplars_are_earlier_turns_with_their_own_tools() -> None:
    shown = row("add 1", tools=(TOOL,), target='{"name": "add", "arguments": {"a": 1}}')
    turns = chat_messages(row("add 2", tools=(TOOL,)), AskOptions(exemplars=(shown,)))
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[1]["content"].startswith("You can call this function:")
    assert turns[1]["content"].endswith("Request: add 1")
    assert turns[2]["content"] == shown.target
    assert turns[3]["content"] == "add 2"
    with pytest.raises(ValueError, match="no target"):
        chat_messages(row(), AskOptions(exemplars=(row(),)))


@pytest.mark.req("G4")
async def test_a_tool_call_is_read_as_its_canonical_text(endpoint: tuple[Endpoint, str]) -> None:
    async with Asker(endpoint[1]) as asker:
        answer = await asker.ask(row("x", tools=(TOOL,)), model="caller")
    assert answer.text == '{"name": "add", "arguments": {"a": 1}}'
    assert str(parse_call(answer.text)) == answer.text


@pytest.mark.parametrize(
    ("content", "calls", "text"),
    [
        ("plain", None, "plain"),
        (None, [], ""),
        ("prose", [("f", "{}")], '{"name": "f", "arguments": {}}'),
        (None, [("f", "{broken")], '{"name": "f", "arguments": "{broken"}'),
    ],
)
def test_the_text_comes_from_either_half_of_a_message(
    content: str | None, calls: list[tuple[str, str]] | None, text: str
) -> None:
    entries = [{"function": {"name": n, "arguments": a}} for n, a in calls or ()]
    assert call_text(content, entries) == text


def test_several_calls_stay_several() -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}] * 2
    assert len(json.loads(call_text(None, calls))["tool_calls"]) == 2


@pytest.mark.req("S8")
async def test_greedy_answers_are_kept_by_content_and_others_are_not(
    endpoint: tuple[Endpoint, str], tmp_path: Path
) -> None:
    server, url = endpoint
    async with Asker(url, cache=tmp_path) as asker:
        first = await asker.ask(row("hi"), model="a", identity="sha256:1")
        again = await asker.ask(row("hi"), model="renamed", identity="sha256:1")
        assert (again.text, again.latency_ms, again.cached) == (first.text, first.latency_ms, True)
        assert len(server.seen) == 1
        await asker.ask(row("hi"), model="a", identity="sha256:2")
        await asker.ask(row("ho"), model="a", identity="sha256:1")
        await asker.ask(row("hi"), model="a")
        for _ in range(2):
            hot = AskOptions(temperature=1.0)
            await asker.ask(row("hi"), model="a", identity="sha256:1", options=hot)
        assert len(server.seen) == 6
        _break_every_file(tmp_path)
        assert not (await asker.ask(row("hi"), model="a", identity="sha256:1")).cached


def _break_every_file(folder: Path) -> None:
    for kept in folder.rglob("*.json"):
        kept.write_text("{")


async def test_a_busy_endpoint_is_asked_again_when_it_says(endpoint: tuple[Endpoint, str]) -> None:
    started = time.monotonic()
    async with Asker(endpoint[1]) as asker:
        answer = await asker.ask(row("hi"), model="busy")
    waited_s = time.monotonic() - started
    assert len(endpoint[0].seen) == 3
    assert waited_s >= 0.6
    assert answer.latency_ms < 1000 * (waited_s - 0.5)


async def test_an_endpoint_that_stays_away_is_a_retryable_error(
    endpoint: tuple[Endpoint, str],
) -> None:
    async with Asker(endpoint[1], retries=1) as asker:
        with pytest.raises(PeerUnavailable, match="restarting") as caught:
            await asker.ask(row(), model="down")
    assert caught.value.retryable
    assert len(endpoint[0].seen) == 2


async def test_no_endpoint_at_all_is_a_retryable_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async with Asker(f"http://127.0.0.1:{sock.getsockname()[1]}/v1", retries=0) as asker:
            with pytest.raises(PeerUnavailable, match="does not answer"):
                await asker.ask(row(), model="a")


async def test_a_refused_request_is_not_tried_again(endpoint: tuple[Endpoint, str]) -> None:
    async with Asker(endpoint[1]) as asker:
        with pytest.raises(PermanentError, match="no such model"):
            await asker.ask_all([row("a")], model="unknown")
    assert len(endpoint[0].seen) == 1


async def test_many_rows_are_asked_side_by_side_and_answered_in_order(
    endpoint: tuple[Endpoint, str],
) -> None:
    heard: list[tuple[int, int]] = []
    rows = [row(f"row {i}") for i in range(20)]
    async with Asker(endpoint[1], concurrency=5) as asker:
        answers = await asker.ask_all(
            rows, model="a", on_done=lambda done, total, *_: heard.append((done, total))
        )
    assert [answer.text for answer in answers] == [f"row {i}" for i in range(20)]
    assert heard == [(i + 1, 20) for i in range(20)]
    assert 2 <= endpoint[0].most_at_once <= 5


@pytest.mark.req("D4")
async def test_an_answer_the_validator_refuses_is_asked_for_again_with_its_complaint(
    endpoint: tuple[Endpoint, str], tmp_path: Path
) -> None:
    served, url = endpoint
    asked = row().model_copy(update={"tools": (TOOL,)})
    validator = validator_for(None, [asked])
    assert validator is not None
    retry = Retry(validator=validator, times=2)
    async with Asker(url, cache=tmp_path) as asker:
        answer = await asker.ask(asked, model="careless", identity="m", retry=retry)
        again = await asker.ask(asked, model="careless", identity="m", retry=retry)
    assert parse_call(answer.text).name == "add"
    assert (answer.requests, answer.prompt_tokens, answer.completion_tokens) == (2, 14, 6)
    turns = served.seen[1]["messages"]
    assert [turn["role"] for turn in turns[-2:]] == ["assistant", "user"]
    assert turns[-2]["content"] == "one"
    assert "not JSON" in turns[-1]["content"]
    assert (again.text, again.cached, len(served.seen)) == (answer.text, True, 2)


@pytest.mark.parametrize(("times", "requests"), [(0, 1), (3, 4)])
async def test_retries_end_after_as_many_as_allowed(
    endpoint: tuple[Endpoint, str], times: int, requests: int
) -> None:
    served, url = endpoint
    async with Asker(url) as asker:
        retry = Retry(validator=lambda _row, _answer: "never good", times=times)
        answer = await asker.ask(row(), model="echo", retry=retry)
    assert (answer.requests, len(served.seen)) == (requests, requests)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ('{"name": "add", "arguments": {"a": 1}}', ""),
        ('{"name": "add", "arguments": {"a": "x"}}', "'x' is not of type 'integer'"),
        ('{"name": "sub", "arguments": {}}', "no function 'sub'"),
        ("add(1)", "not JSON"),
    ],
)
def test_a_call_is_validated_by_its_signature_alone(answer: str, complaint: str) -> None:
    asked = row().model_copy(update={"tools": (TOOL,), "expected": None})
    validator = validator_for(None, [asked])
    assert validator is not None
    found = validator(asked, answer)
    assert complaint in found
    assert bool(complaint) == bool(found)


def test_a_document_is_validated_by_the_jobs_schema_and_plain_text_by_nothing() -> None:
    validator = validator_for({"type": "object", "required": ["total"]}, [])
    assert validator is not None
    assert validator(row(), '{"total": 1}') == ""
    assert "'total' is a required property" in validator(row(), "{}")
    assert validator_for(None, [row()]) is None

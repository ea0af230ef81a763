"""What a caller hears whose request is one too many, or too late."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from services.serving.directory import Directory
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.http.app import create_app
from tests.serving.live_server import KEYS, Outcomes

ASK = {"model": "base", "prompt": "The fox", "max_tokens": 120, "ignore_eos": True}


@pytest.fixture
def narrow(base):
    """An engine that answers one at a time and lets two wait."""
    engine = LlamaEngine(base, EngineConfig(slots=1, queue=2))
    yield engine
    engine.close()


@asynccontextmanager
async def client_of(engine):
    app = create_app(
        engine=lambda: engine, directory=Directory(), keys=KEYS, sink=Outcomes(), folders=Path
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://serving",
        headers={"Authorization": "Bearer sk-acme"},
        timeout=60,
    ) as client:
        yield client


@pytest.mark.req("V1")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_one_too_many_is_told_when_to_come_back_and_is_answered_then(narrow, stream):
    async with client_of(narrow) as client:

        async def ask():
            return await client.post("/v1/completions", json={**ASK, "stream": stream})

        answers = await asyncio.gather(*(ask() for _ in range(8)))
        refused = [a for a in answers if a.status_code != 200]
        assert {a.status_code for a in refused} == {429}
        assert {a.json()["error"]["code"] for a in refused} == {"overloaded"}
        assert all(int(a.headers["Retry-After"]) >= 1 for a in refused)
        assert len(answers) - len(refused) >= 2  # as many may wait
        assert (await ask()).status_code == 200


@pytest.mark.req("V1")
async def test_a_request_that_is_too_late_fails_and_frees_its_place(narrow):
    async with client_of(narrow) as client:
        late = await client.post("/v1/completions", json={**ASK, "timeout_s": 0.001})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert (await client.post("/v1/completions", json=ASK)).status_code == 200
        assert narrow.stats().running == narrow.stats().waiting == 0


@pytest.mark.req("V1")
async def test_a_stream_that_is_cut_off_by_its_deadline_says_so_before_it_ends(narrow):
    timeout_s, body = 0.02, {**ASK, "max_tokens": 480, "stream": True}
    async with client_of(narrow) as client:
        while True:
            answer = await client.post("/v1/completions", json={**body, "timeout_s": timeout_s})
            if answer.status_code == 200:  # it has begun in time
                break
            timeout_s *= 1.5
    lines = [line for line in answer.text.splitlines() if line]
    assert (answer.status_code, lines[-1]) == (200, "data: [DONE]")
    assert '"deadline_exceeded"' in lines[-2]


async def test_while_the_model_loads_everybody_is_told_when_to_come_back():
    async with client_of(None) as client:
        answer = await client.post("/v1/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert int(answer.headers["Retry-After"]) >= 1

"""Drift by meaning: a request's distance from what its adapter was measured on."""

from __future__ import annotations

import asyncio
import json

import pytest

from contracts.base import digest_of
from services.serving.directory import Directory
from services.serving.engine.port import GenerationRequest, PromptScored
from services.serving.envelope import Envelope, Gauge, texts_of
from services.serving.http.app import create_app
from services.serving.prompts import PromptScorer
from shared.errors import ArtifactMissing
from shared.similarity.adapters.minilm import MiniLm, available
from shared.similarity.plain import HashedWords
from tests.monitoring.provocations import provoked_by
from tests.serving.live_server import KEYS, Outcomes

CITIES = ("Oslo", "Lima", "Cairo", "Quito", "Delhi", "Perth", "Turin", "Basel")
DEV = [
    text
    for city in CITIES
    for text in (f"What is the weather in {city} today?", f"Will it rain in {city} tomorrow?")
]
LIKE = ["What is the weather in Paris today?", "Will it rain in Rome tomorrow?"]
UNLIKE = ["Write a limerick about my landlord", "def quicksort(xs): fix the bug in this function"]
EMBEDDERS = [
    pytest.param(HashedWords, id="words"),
    pytest.param(
        MiniLm,
        id="meaning",
        marks=pytest.mark.skipif(not available(), reason="the extra `meaning` is not installed"),
    ),
]


def rows(texts) -> bytes:
    lines = [{"id": t, "messages": [{"role": "user", "content": t}]} for t in texts]
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.mark.req("M15")
@pytest.mark.parametrize("embedder", EMBEDDERS)
def test_a_request_like_the_dev_set_is_within_one_and_a_half_and_another_beyond(embedder) -> None:
    made = embedder()
    envelope = Envelope.of(DEV, made)
    near, far = (
        [envelope.distance(vector) for vector in made.embed(texts)] for texts in (LIKE, UNLIKE)
    )
    assert max(near) <= 1.5 < min(far), (near, far)


@pytest.mark.req("M15")
def test_the_dev_set_itself_lies_at_a_distance_of_zero_and_has_its_own() -> None:
    made = HashedWords()
    envelope = Envelope.of(DEV, made)
    assert envelope.distance(made.embed(DEV[:1])[0]) == pytest.approx(0, abs=1e-5)
    assert 0.05 < envelope.spread < 1
    assert envelope.distance(made.embed([""])[0]) == pytest.approx(1 / envelope.spread)
    with pytest.raises(ValueError, match="fewer than two"):
        Envelope.of(DEV[:1], made)


def test_texts_are_the_newest_user_turns_with_parts_joined() -> None:
    line = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": [{"type": "text", "text": "se"}, {"text": "cond"}]},
        ]
    }
    assert texts_of(json.dumps(line).encode() + b"\n\n") == ["second"]


DIGEST = digest_of(rows(DEV))


def outcome(number: int, **changes):
    return provoked_by("schema_adherence")[0].model_copy(
        update={"request_id": f"r{number}", **changes}
    )


def gauge(sink, *, read=lambda _: rows(DEV), dev_set=lambda *_: DIGEST, now=lambda: 0.0) -> Gauge:
    return Gauge(HashedWords(), dev_set, read, sink, clock=now)


async def arrived(sink, count: int):
    async with asyncio.timeout(10):
        while len(sink) < count:
            await asyncio.sleep(0.01)
    return {found.request_id: found for found in sink}


@pytest.mark.req("M15")
async def test_a_sample_of_the_users_outcomes_carries_its_distance_and_its_embedder() -> None:
    sink, clock = Outcomes(), [0.0]
    made = gauge(sink, now=lambda: clock[0])
    async with made.running():
        for number, text in enumerate((*LIKE, UNLIKE[0], LIKE[0])):
            clock[0] += 0.3  # two a second: every other one is heard
            made.hear("acme", f"r{number}", text)
            await made.emit(outcome(number))
        found = await arrived(sink, 4)
    measured = {name for name, one in found.items() if one.semantic_distance is not None}
    assert measured == {"r0", "r2"}
    assert found["r0"].semantic_distance <= 1.5 < found["r2"].semantic_distance
    assert found["r0"].embedder == "hashed words, no model"


@pytest.mark.req("M15")
async def test_no_request_waits_for_an_embedding_and_none_is_lost_by_one() -> None:
    sink = Outcomes()
    made = gauge(sink)
    made.hear("acme", "r1", LIKE[0])
    await made.emit(outcome(1))  # nobody works yet: it waits in the queue, not the caller
    await made.emit(outcome(2))
    await made.emit(outcome(1, arm="shadow"))
    made.hear("globex", "r3", LIKE[0])
    await made.emit(outcome(3))  # another tenant's request of the same id is not this one
    assert [(one.request_id, one.arm) for one in sink] == [
        ("r2", "stable"),
        ("r1", "shadow"),
        ("r3", "stable"),
    ]
    async with made.running():
        pass
    assert {one.request_id for one in sink} == {"r1", "r2", "r3"}
    assert len(sink) == 4


@pytest.mark.req("M15")
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"dev_set": lambda *_: None}, id="no candidate"),
        pytest.param({"read": lambda _: b"not json"}, id="unreadable"),
        pytest.param({"read": lambda _: rows(DEV[:1])}, id="one row"),
    ],
)
async def test_without_a_dev_set_outcomes_go_on_unmeasured(broken) -> None:
    sink = Outcomes()
    made = gauge(sink, **broken)
    async with made.running():
        made.hear("acme", "r1", LIKE[0])
        await made.emit(outcome(1))
        found = await arrived(sink, 1)
    assert found["r1"].semantic_distance is None


async def test_a_missing_artifact_is_asked_for_once() -> None:
    sink, asked = Outcomes(), []

    def read(digest):
        asked.append(digest)
        raise ArtifactMissing(digest)

    clock = [0.0]
    made = gauge(sink, read=read, now=lambda: clock[0])
    async with made.running():
        for number in range(3):
            clock[0] += 1
            made.hear("acme", f"r{number}", LIKE[0])
            await made.emit(outcome(number))
        await arrived(sink, 3)
    assert asked == [DIGEST]


@pytest.mark.req("M15")
def test_the_api_says_what_a_user_asked_under_the_tenant_of_the_key(engine) -> None:
    from starlette.testclient import TestClient

    heard: list[tuple[object, ...]] = []
    app = create_app(
        engine=lambda: engine,
        directory=Directory(),
        keys=KEYS,
        sink=Outcomes(),
        folders=lambda _: None,
        hear=lambda *what: heard.append(what),
    )
    turns = [{"role": "user", "content": "Will it rain?"}]
    with TestClient(app, headers={"Authorization": "Bearer sk-acme"}) as client:
        body = {"model": "base", "messages": turns, "max_tokens": 1}
        answer = client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "r1"})
    assert answer.status_code == 200
    assert [one[:3] for one in heard] == [("acme", "r1", "Will it rain?")]
    assert len(heard[0][3]) == answer.json()["usage"]["prompt_tokens"]


@pytest.mark.req("M15")
async def test_a_sampled_prompt_is_scored_by_the_frozen_base(engine) -> None:
    clock = [0.0]
    scorer = PromptScorer(lambda: engine, clock=lambda: clock[0])
    sink, prompt = Outcomes(), tuple(range(5, 25))
    made = Gauge(HashedWords(), lambda *_: DIGEST, lambda _: rows(DEV), sink, score=scorer.score)
    async with made.running():
        for number in range(2):  # both are measured; only one in ten seconds is scored
            made._next = 0.0
            made.hear("acme", f"r{number}", LIKE[0], prompt)
            await made.emit(outcome(number))
        found = await arrived(sink, 2)
    asked = GenerationRequest(prompt=prompt, max_tokens=0, prompt_logprobs=0)
    events = [event async for event in await engine.submit(asked)]
    truth = sum(t.logprob for e in events if isinstance(e, PromptScored) for t in e.tokens if t)
    assert found["r0"].prompt_logprob == pytest.approx(truth)
    assert truth < -1
    assert found["r1"].prompt_logprob is None
    assert found["r1"].semantic_distance is not None
    clock[0] = 10.0
    assert await scorer.score(prompt) == pytest.approx(truth)
    assert await PromptScorer(lambda: None).score(prompt) is None

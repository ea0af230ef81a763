"""Anything at the HTTP interfaces, as their OpenAPI documents invite it: no 500, no crash.

Schemathesis makes requests that the documents allow and requests that they forbid; to these come
real requests with something wrong in them. One server takes them all, one after the other.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from contracts.envelope import recorded
from contracts.run import Run
from contracts.subjects import RunRef
from services.console.projection import Projection
from services.console.routes import build
from services.console.settings import ConsoleSettings
from services.serving.directory import Directory
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.http.app import create_app
from services.serving.keys import Keys
from shared.testing.tiny_model import build_tiny_llama
from tests.chaos.test_parsers import SAMPLES, spoiled

pytestmark = [pytest.mark.timeout(3600), pytest.mark.slow, pytest.mark.req("P3")]

SHORT, LONG = 10, 200
PATIENCE_S = 60.0
"""A busy machine is no crash."""
REF = RunRef("acme", "r1")
TOOL = {
    "type": "function",
    "function": {
        "name": "switch",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}},
    },
}
N_IS_ONE = {"name": "n", "schema": {"enum": [1]}}
CHAT: dict[str, Any] = {
    "model": "base",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "yes"}]},
    ],
    "max_tokens": 2,
    "n": 1,
    "seed": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "stop": ["no"],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "switch"}},
    "logit_bias": {"5": 1.0},
    "logprobs": True,
    "top_logprobs": 1,
    "documents": [{"text": "a passage"}],
}
JSON_CHAT = {
    **{k: v for k, v in CHAT.items() if k not in {"tools", "tool_choice"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": N_IS_ONE,
    },
}
REAL: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [CHAT, JSON_CHAT, {**CHAT, "stream": True}],
    "/v1/completions": [
        {"model": "base", "prompt": "yes", "max_tokens": 2, "echo": True, "logprobs": 1},
        {"model": "base", "prompt": [5, 6, 7], "max_tokens": 2, "stop": "no"},
        {"model": "base", "prompt": [[5], [6]], "max_tokens": 1},
        {"model": "base", "prompt": "yes", "max_tokens": 2, "structured_outputs": {"regex": "a+"}},
    ],
    "/v1/feedback": [{"request_id": "r", "model": "answers", "kind": "override"}],
    "/v1/internal/fingerprint": [{"model": "base", "messages": CHAT["messages"], "token_ids": [5]}],
}


class Nobody:
    """Takes outcomes and keeps none."""

    async def emit(self, _: object) -> None:
        return None


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    base = build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")
    engine = LlamaEngine(base, EngineConfig(slots=8, step_tokens=64, max_adapters=2))
    yield create_app(
        engine=lambda: engine,
        directory=Directory(base_label="tiny"),
        keys=Keys("sk-service", lambda: {"acme": "sk-acme"}),
        sink=Nobody(),
        folders=lambda digest: base,
    )
    engine.close()


@pytest.fixture(scope="module")
def console() -> FastAPI:
    accepted = SAMPLES["diagnosis.accepted"]
    headers = {
        "ce-id": "x",
        "ce-type": "sluice.v1.diagnosis.accepted",
        "ce-time": datetime.now(UTC).isoformat(),
        "ce-sluicecause": "t",
    }
    subject = "sluice.v1.run.acme.r1.diagnosis.accepted"
    run = Run(ref=REF).apply(recorded(subject, headers, json.dumps(accepted).encode(), 1))

    async def load(ref: RunRef) -> Run | None:
        return run if ref == REF else None

    async def command(_: RunRef, __: object) -> None:
        return None

    return build(Projection(), ConsoleSettings(), load=load, command=command)


@pytest.fixture
def examples(long: bool) -> int:
    return LONG if long else SHORT


KEYS_TRIED = ["sk-acme", "sk-service.acme", "sk-nobody", ""]


def hurried(case: schemathesis.Case) -> None:
    """The same request with few tokens to make: it is the interface that is tried."""
    body = case.body
    if isinstance(body, dict):
        for name in ("max_tokens", "max_completion_tokens", "n"):
            if isinstance(body.get(name), int) and body[name] > 2:
                body[name] = 2
        if "messages" in body and not isinstance(body.get("max_completion_tokens"), int):
            body.setdefault("max_tokens", 2)


Call = Callable[[schemathesis.Case, st.DataObject], int]


def quietly(seed: int, examples: int) -> Callable[[Any], Any]:
    """Hypothesis with our seed, and nothing kept between runs."""

    def decorate(test: Any) -> Any:
        kept = hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        return hypothesis.seed(seed)(kept(test))

    return decorate


def fuzz(app: FastAPI, document: str, seed: int, examples: int, call: Call) -> Counter[str]:
    """Requests of each operation of the document, allowed and forbidden; statuses by operation."""
    schema = schemathesis.openapi.from_asgi(document, app, headers={"host": "127.0.0.1"})
    seen: Counter[str] = Counter()

    def try_operation(operation: Any, mode: GenerationMode) -> None:
        @quietly(seed, examples)
        @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def try_it(case: schemathesis.Case, data: st.DataObject) -> None:
            status = call(case, data)
            seen[f"{operation.label} {status}"] += 1
            assert status < 500, (operation.label, case.body)

        try_it()

    for offered in schema.get_all_operations():
        try_operation(offered.ok(), GenerationMode.POSITIVE)
        with suppress(Unsatisfiable):  # what takes nothing can be given nothing wrong
            try_operation(offered.ok(), GenerationMode.NEGATIVE)
    return seen


def test_serving_answers_whatever_its_document_allows_and_forbids(
    serving: FastAPI, seed: int, examples: int
) -> None:
    def call(case: schemathesis.Case, data: st.DataObject) -> int:
        hurried(case)
        named = data.draw(st.sampled_from([None, "base", "tiny"]))
        if named and isinstance(case.body, dict):
            case.body["model"] = named
        key = data.draw(st.sampled_from(KEYS_TRIED))
        sent = {"Authorization": f"Bearer {key}"}
        return int(case.call(headers=sent, timeout=PATIENCE_S).status_code)

    seen = fuzz(serving, "/openapi.json", seed, examples, call)
    print(f"{seen.total()} requests: {dict(seen)}", flush=True)
    assert any(name.endswith(" 200") and "completions" in name for name in seen)


def test_the_console_answers_whatever_its_document_allows_and_forbids(
    console: FastAPI, seed: int, examples: int
) -> None:
    def call(case: schemathesis.Case, data: st.DataObject) -> int:
        if data.draw(st.booleans()) and "tenant" in case.path_parameters:
            case.path_parameters.update(tenant=REF.tenant, name=REF.run)
        endless = case.operation.path.endswith("/facts")  # cut, then: its status has come by now
        patience = 0.2 if endless else PATIENCE_S
        return int(case.call(headers={"host": "127.0.0.1"}, timeout=patience).status_code)

    seen = fuzz(console, "/api/openapi.json", seed, examples, call)
    print(f"{seen.total()} requests: {dict(seen)}", flush=True)
    assert any(name.endswith(" 200") and "{name}" in name for name in seen)


@pytest.mark.parametrize("path", REAL)
def test_a_real_request_with_something_wrong_in_it_is_answered(
    serving: FastAPI, path: str, seed: int, examples: int
) -> None:
    client = TestClient(serving)
    headers = {"Authorization": "Bearer sk-service.acme", "content-type": "application/json"}
    seen: Counter[int] = Counter()

    @quietly(seed, examples * 10)
    @given(body=st.one_of(st.binary(max_size=50), *(spoiled(copy.deepcopy(s)) for s in REAL[path])))
    def try_it(body: bytes) -> None:
        answer = client.post(path, content=body, headers=headers)
        seen[answer.status_code] += 1
        assert answer.status_code < 500, (body, answer.text)

    try_it()
    print(f"{path}: {dict(seen)}", flush=True)
    for sample in REAL[path]:
        answer = client.post(path, json=sample, headers=headers)
        assert answer.status_code in ({404} if "feedback" in path else {200}), answer.text

"""The OpenAI-compatible API over an engine: authorize, route, answer, report."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from contracts.serving import (
    EngineDescription,
    FingerprintAnswer,
    FingerprintQuestion,
)
from contracts.telemetry import Feedback
from services.serving.directory import Directory, Route, Target, UnknownModel
from services.serving.engine.port import (
    Engine,
    GenerationRequest,
    PromptScored,
)
from services.serving.envelope import asked_of
from services.serving.execution import Ask, Execution, OutcomeSink
from services.serving.http import administration, errors
from services.serving.http.asks import (
    chat_ask,
    completion_ask,
    prompts_of,
    rendered,
    repeated,
)
from services.serving.http.errors import HttpError
from services.serving.http.replies import (
    Head,
    chat_choice,
    chat_chunks,
    text_choice,
    text_chunks,
)
from services.serving.http.wire import ChatRequest, CompletionRequest, FeedbackRequest
from services.serving.keys import Caller, Keys
from services.serving.residency import AdapterFolders, Residency, resident
from shared.metrics import Residents

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, and how this request is called."""

    caller: Caller
    id: str
    conversation: str | None
    attempt: int = 1
    traceparent: str | None = None


def create_app(
    *,
    engine: Callable[[], Engine | None],
    directory: Directory,
    keys: Keys,
    sink: OutcomeSink,
    folders: AdapterFolders,
    catch_up: Callable[[], Awaitable[None]] | None = None,
    hear: Callable[[str, str, str, Sequence[int]], None] | None = None,
    waiting: Callable[[], int] = lambda: 0,
) -> FastAPI:
    """The application. `engine()` is None until the model is loaded.

    `catch_up` brings the directory to the end of the run log; an unknown model is looked up once
    more after it, so whoever has read a fact may act on it here at once. `hear` is told tenant,
    request id, what the user asks, and the prompt's tokens. `waiting()` counts runs whose facts
    cannot be checked now; they keep what they had.
    """
    app = FastAPI(title="Sluiceway serving", docs_url=None, redoc_url=None)
    errors.install(app)
    executions: dict[int, Execution] = {}

    def running() -> tuple[Engine, Execution]:
        now = engine()
        if now is None or not now.ready:
            raise HttpError(
                503, "the model is not loaded yet", code="not_ready", mend="wait for GET /healthz"
            )
        if id(now) not in executions:
            executions[id(now)] = Execution(now, Residency(now, folders), sink)
        return now, executions[id(now)]

    async def asked(request: Request) -> Asked:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = keys.caller(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise HttpError(
                401,
                "unknown API key",
                code="invalid_api_key",
                mend="send Authorization: Bearer <key>",
            )
        return Asked(
            caller,
            request.headers.get("x-request-id") or f"req-{uuid.uuid4().hex}",
            request.headers.get("x-conversation-id"),
            _attempt(request.headers.get("x-sluice-attempt", "1")),
            request.headers.get("traceparent"),
        )

    who = Depends(asked)

    async def caller(who: Asked = who) -> Caller:
        return who.caller

    async def looked_up(look: Callable[[], T]) -> T:
        try:
            return look()
        except UnknownModel:
            if catch_up is None:
                raise
            await catch_up()
            return look()

    async def route(model: str, who: Asked, user: str | None) -> Route:
        return await looked_up(
            lambda: directory.resolve(
                model,
                tenant=who.caller.tenant,
                evaluate="evaluate" in who.caller.scopes,
                conversation=who.conversation or user or who.id,
            )
        )

    @app.get("/health", include_in_schema=False)  # where clients of other engines look
    @app.get("/healthz")
    async def healthz() -> Response:
        now = engine()
        ready = now is not None and now.ready
        status = {"status": "ok" if ready else "loading", "routing_waits_for": waiting()}
        return JSONResponse(status, status_code=200 if ready else 503)

    @app.get("/v1/models")
    async def models(who: Asked = who) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": who.caller.tenant}
                for name in directory.names(who.caller.tenant)
            ],
        }

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, who: Asked = who) -> Response:
        now, execution = running()
        chosen = await route(body.model, who, body.user)
        ask = replace(
            chat_ask(now, body, request=who.id, tenant=who.caller.tenant, attempt=who.attempt),
            traceparent=who.traceparent,
        )
        asks = repeated(ask, body.n)
        if body.stream and len(asks) > 1:
            raise _cannot_stream("only one answer can stream")
        if hear is not None:
            asked = asked_of(body.messages)
            hear(who.caller.tenant, ask.id, asked, ask.generation.prompt)
        answers = await asyncio.gather(*(execution.begin(ask, chosen) for ask in asks))
        head = Head("chat.completion", "chatcmpl-" + who.id, body.model, answers[0].model, who.id)
        if body.stream:
            return head.stream(chat_chunks(answers[0], body, head, now.tokenizer))
        events = await asyncio.gather(*(answer.complete() for answer in answers))
        choices = [
            chat_choice(index, body, answer, happened, now.tokenizer)
            for index, (answer, happened) in enumerate(zip(answers, events, strict=True))
        ]
        return head.reply(choices, answers)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, who: Asked = who) -> Response:
        now, execution = running()
        chosen = await route(body.model, who, body.user)
        asks = [
            ask
            for prompt in prompts_of(now.tokenizer, body.prompt)
            for ask in repeated(
                replace(
                    completion_ask(body, prompt, request=who.id, tenant=who.caller.tenant),
                    traceparent=who.traceparent,
                ),
                body.n,
            )
        ]
        if body.stream and (len(asks) > 1 or body.echo):
            raise _cannot_stream("only one answer to one prompt without echo can stream")
        answers = await asyncio.gather(*(execution.begin(ask, chosen) for ask in asks))
        head = Head("text_completion", "cmpl-" + who.id, body.model, answers[0].model, who.id)
        if body.stream:
            return head.stream(text_chunks(answers[0], body, head, now.tokenizer))
        events = await asyncio.gather(*(answer.complete() for answer in answers))
        choices = [
            text_choice(index, body, ask.generation.prompt, answer, happened, now.tokenizer)
            for index, (ask, answer, happened) in enumerate(zip(asks, answers, events, strict=True))
        ]
        return head.reply(choices, answers)

    @app.post("/v1/feedback", status_code=202)
    async def feedback(body: FeedbackRequest, who: Asked = who) -> dict[str, str]:
        tenant = who.caller.tenant
        deployment = directory.deployment(tenant, body.model)
        if deployment is None:
            raise UnknownModel(body.model)
        model = body.answered_by or deployment.stable
        await sink.emit(
            Feedback(
                request_id=body.request_id,
                tenant=tenant,
                deployment=deployment.name,
                model=model,
                run=directory.run_of(tenant, model),
                kind=body.kind,
                at=time.time(),
            )
        )
        return {"status": "accepted", "model": model}

    async def platform(who: Asked = who) -> Asked:
        if "evaluate" not in who.caller.scopes:
            raise HttpError(
                403,
                "this key may not evaluate",
                code="forbidden",
                mend="use the platform's service key",
            )
        return who

    trusted = Depends(platform)

    def held() -> tuple[Engine, Residency]:
        now, execution = running()
        return now, execution.residency

    async def named(adapter_id: str, tenant: str) -> Target:
        return await looked_up(lambda: directory.adapter(tenant, adapter_id))

    Residents(lambda: resident(directory, held()[1]) if engine() else ())
    app.include_router(administration.routes(caller, directory, held, named))

    @app.get("/v1/internal/engine")
    async def description(_: Asked = trusted) -> Response:
        now, _execution = running()
        info = now.info
        described = EngineDescription(
            base=info.base,
            tokenizer=info.tokenizer,
            max_lora_rank=info.max_lora_rank,
            target_modules=info.target_modules,
            dtype=info.dtype,
            engine=", ".join(f"{k}={v}" for k, v in info.details.items()),
        )
        return JSONResponse(described.model_dump(mode="json"))

    @app.post("/v1/internal/fingerprint")
    async def fingerprint(body: FingerprintQuestion, who: Asked = trusted) -> Response:
        now, execution = running()
        prompt = rendered(now, body.messages, body.tools)
        ask = Ask(
            id=who.id,
            tenant=who.caller.tenant,
            generation=GenerationRequest(
                prompt=prompt, max_tokens=0, next_token_ids=body.token_ids
            ),
        )
        answer = await execution.begin(ask, await route(body.model, who, None))
        events = await answer.complete()
        scored = next(event for event in events if isinstance(event, PromptScored))
        answered = FingerprintAnswer(prompt_token_ids=prompt, logprobs=scored.next_token)
        return JSONResponse(answered.model_dump(mode="json"))

    return app


def _cannot_stream(message: str) -> HttpError:
    return HttpError(400, message, code="invalid_request", mend="set stream to false")


def _attempt(header: str) -> int:
    """`X-Sluice-Attempt`; what is no positive number is a first try."""
    return max(1, int(header)) if header.isdecimal() and len(header) < 6 else 1

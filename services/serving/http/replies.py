"""Answers as HTTP responses: whole, or chunk by chunk as they run."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

from services.serving.engine.port import Finished, PromptScored, Token, TokenLogprob
from services.serving.execution import Answer
from services.serving.http import errors, render
from services.serving.http.wire import ChatRequest, CompletionRequest


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one response repeats."""

    object: str
    id: str
    asked_model: str
    model: str
    request_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Sluice-Model": self.model, "X-Request-Id": self.request_id}

    def body(self, **fields: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.object,
            "created": int(time.time()),
            "model": self.asked_model,
            **fields,
        }

    def reply(self, choices: list[dict[str, Any]], answers: list[Answer]) -> Response:
        counts = render.usage([a.finished for a in answers if a.finished])
        return JSONResponse(self.body(choices=choices, usage=counts), headers=self.headers)

    def stream(self, chunks: AsyncIterator[dict[str, Any]]) -> Response:
        async def lines() -> AsyncIterator[str]:
            try:
                async for chunk in chunks:
                    yield f"data: {json.dumps(chunk)}\n\n"
            except Exception as error:  # the status line is gone: the error travels as an event
                yield f"data: {json.dumps(errors.body(errors.translate(error)))}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream", headers=self.headers)


def _reason(answer: Answer) -> str:
    return answer.finished.reason if answer.finished else "stop"


def _logprobs(events: list[Any]) -> list[TokenLogprob]:
    return [e.logprob for e in events if isinstance(e, Token) and e.logprob is not None]


def chat_choice(
    index: int, body: ChatRequest, answer: Answer, events: list[Any], tokenizer: Any
) -> dict[str, Any]:
    """One choice of a chat completion whose answer has ended with `events`."""
    message, call = render.message(answer.text, body.tools)
    logprobs = render.chat_logprobs(tokenizer, _logprobs(events)) if body.logprobs else None
    return {
        "index": index,
        "message": message,
        "finish_reason": "tool_calls" if call else _reason(answer),
        "logprobs": logprobs,
    }


def text_choice(
    index: int,
    body: CompletionRequest,
    prompt: tuple[int, ...],
    answer: Answer,
    events: list[Any],
    tokenizer: Any,
) -> dict[str, Any]:
    """One choice of a completion whose answer has ended with `events`."""
    text, logprobs = answer.text, None
    if body.echo:
        text = tokenizer.decode(list(prompt)) + text
    if body.logprobs is not None:
        scored = next((e.tokens for e in events if isinstance(e, PromptScored)), ())
        prefix = [prompt[0] if item is None else item for item in scored]
        logprobs = render.completion_logprobs(tokenizer, [*prefix, *_logprobs(events)])
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": _reason(answer),
    }


async def chat_chunks(
    answer: Answer, body: ChatRequest, head: Head, tokenizer: Any
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a chat completion, as its answer runs."""

    def chunk(delta: dict[str, Any], *, reason: str | None = None, logprobs: Any = None) -> Any:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return {**head.body(choices=[choice]), "object": "chat.completion.chunk"}

    yield chunk({"role": "assistant", "content": ""})
    async for event in answer:
        if isinstance(event, Token | Finished) and (event.text or getattr(event, "logprob", None)):
            report = getattr(event, "logprob", None)
            logprobs = render.chat_logprobs(tokenizer, [report]) if report else None
            yield chunk({"content": event.text}, logprobs=logprobs)
    message, call = render.message(answer.text, body.tools)
    if call is not None:
        yield chunk({"tool_calls": [{"index": 0, **message["tool_calls"][0]}]})
    yield chunk({}, reason="tool_calls" if call else _reason(answer))
    if body.wants_usage and answer.finished:
        last = head.body(choices=[], usage=render.usage([answer.finished]))
        yield {**last, "object": "chat.completion.chunk"}


async def text_chunks(
    answer: Answer, body: CompletionRequest, head: Head, tokenizer: Any
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a completion, as its answer runs."""
    async for event in answer:
        if isinstance(event, Token | Finished):
            report = getattr(event, "logprob", None)
            logprobs = render.completion_logprobs(tokenizer, [report]) if report else None
            reason = event.reason if isinstance(event, Finished) else None
            choice = {"index": 0, "text": event.text, "finish_reason": reason, "logprobs": logprobs}
            yield head.body(choices=[choice])
    if body.wants_usage and answer.finished:
        yield head.body(choices=[], usage=render.usage([answer.finished]))

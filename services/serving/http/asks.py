"""From a request's body to what the engine is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

from services.serving import boundary
from services.serving.engine.port import Engine, GenerationRequest, Sampling
from services.serving.execution import Ask
from services.serving.http.errors import HttpError
from services.serving.http.wire import ChatRequest, CompletionRequest
from shared import chat
from shared.scoring import call_schema


class _Constraint(TypedDict, total=False):
    json_schema: dict[str, Any] | None
    regex: str | None
    grammar: str | None


def chat_ask(
    engine: Engine, body: ChatRequest, *, request: str, tenant: str, attempt: int = 1
) -> Ask:
    tools = [] if body.tool_choice == "none" else body.tools
    for tool in tools:
        if not _is_tool(tool):
            raise HttpError(
                400,
                "a tool has no function with a name and an object of parameters",
                code="invalid_request",
                mend="send {type: function, function: {name, parameters}}",
            )
    schema = _schema(body)
    forced = tools
    if isinstance(body.tool_choice, dict):
        name = _object(body.tool_choice, "function").get("name")
        forced = [t for t in tools if chat.signature(t)["name"] == name]
        if not forced:
            raise HttpError(
                400,
                f"tool_choice names no given tool: {name!r}",
                code="invalid_request",
                mend="name one of the tools",
            )
    must_call = bool(tools) and (
        body.tool_choice == "required" or isinstance(body.tool_choice, dict)
    )
    wanted = (
        body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    )
    return Ask(
        id=request,
        tenant=tenant,
        attempt=attempt,
        call_schema=partial(_call_schema, tools) if tools else None,
        judge=partial(
            boundary.judge,
            tools=tools,
            schema=schema,
            documents=[document.text for document in body.documents],
        ),
        generation=GenerationRequest(
            prompt=_prompt(engine, body, tools),
            max_tokens=engine.info.context if wanted is None else wanted,
            sampling=_sampling(body),
            stop=body.stops,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            **_constraint(body, schema or (_call_schema(forced) if must_call else None)),
            ignore_eos=body.ignore_eos,
            deadline_s=body.timeout_s,
        ),
    )


def completion_ask(
    body: CompletionRequest, prompt: tuple[int, ...], *, request: str, tenant: str
) -> Ask:
    return Ask(
        id=request,
        tenant=tenant,
        operation="text_completion",
        generation=GenerationRequest(
            prompt=prompt,
            max_tokens=16 if body.max_tokens is None else body.max_tokens,
            sampling=_sampling(body),
            stop=body.stops,
            logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if body.echo else None,
            **_constraint(body),
            ignore_eos=body.ignore_eos,
            deadline_s=body.timeout_s,
        ),
    )


def repeated(ask: Ask, n: int | None) -> list[Ask]:
    """`n` asks for answers to one prompt, each with a seed of its own where there is one."""
    first = ask.generation.sampling

    def drawn(index: int) -> Ask:
        seed = None if first.seed is None else first.seed + index
        return replace(ask, generation=replace(ask.generation, sampling=replace(first, seed=seed)))

    return [drawn(index) for index in range(n or 1)]


def _prompt(
    engine: Engine, body: ChatRequest, tools: Sequence[Mapping[str, Any]]
) -> tuple[int, ...]:
    if not body.continue_final_message:
        return rendered(engine, body.messages, tools)
    *before, last = body.messages
    if last.get("role") != "assistant":
        raise HttpError(
            400,
            "continue_final_message needs a last message of the assistant",
            code="invalid_request",
            mend="end the messages with the answer's beginning",
        )
    return rendered(engine, before, tools, begun=_content(last.get("content")))


def rendered(
    engine: Engine,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    begun: str = "",
) -> tuple[int, ...]:
    """The prompt's token ids; `begun` is the beginning of the answer."""
    turns = [{**m, "content": _content(m.get("content"))} for m in messages]
    try:
        return tuple(chat.prompt_ids(engine.tokenizer, turns, tools, begun=begun))
    except Exception as error:  # a template raises what it likes
        raise HttpError(
            400,
            f"the messages do not fit the chat template: {error}",
            code="invalid_messages",
            mend="send role and content for every message, and a user message with tools",
        ) from error


def prompts_of(tokenizer: Any, prompt: Any) -> list[tuple[int, ...]]:
    many = (
        prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
        else [prompt]
    )
    return [
        tuple(tokenizer(one)["input_ids"]) if isinstance(one, str) else tuple(one) for one in many
    ]


def _content(content: Any) -> str:
    """Text of a message whose content may be OpenAI's list of parts."""
    match content:
        case str():
            return content
        case None:
            return ""
        case [*parts] if all(isinstance(part, dict) for part in parts):
            texts = [part.get("text", "") for part in parts if part.get("type") == "text"]
            if all(isinstance(text, str) for text in texts):
                return "".join(texts)
    raise HttpError(
        400,
        "a message's content is neither text nor a list of parts",
        code="invalid_messages",
        mend='send text, or parts as {"type": "text", "text": "..."}',
    )


def _is_tool(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function", tool)
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("parameters") or {}, dict)
    )


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under `name`; an empty one if there is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _schema(body: ChatRequest) -> dict[str, Any] | None:
    """The schema of `response_format`, if it asks for one."""
    asked = body.response_format or {}
    match asked.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            schema = _object(asked, "json_schema").get("schema")
            if isinstance(schema, dict):
                return schema
    raise HttpError(
        400,
        "response_format is not text, json_object or json_schema with a schema",
        code="invalid_request",
        mend="send {type: json_schema, json_schema: {name, schema}}",
    )


def _call_schema(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return call_schema(tools)
    except ValueError as error:
        raise HttpError(
            400, str(error), code="invalid_request", mend="give the tools' $defs distinct names"
        ) from error


def _constraint(
    body: ChatRequest | CompletionRequest, schema: dict[str, Any] | None = None
) -> _Constraint:
    """What the answer is held to: `schema`, or what `structured_outputs` says."""
    asked = body.structured_outputs
    if asked is None:
        return {"json_schema": schema}
    if schema is not None:
        raise HttpError(
            400,
            "structured_outputs stands beside response_format or a required tool call",
            code="invalid_request",
            mend="send one of them",
        )
    if asked.choice is not None:
        return {"regex": "|".join(re.escape(choice) for choice in asked.choice)}
    return {"json_schema": asked.json_schema, "regex": asked.regex, "grammar": asked.grammar}


def _sampling(body: ChatRequest | CompletionRequest) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=tuple((body.logit_bias or {}).items()),
    )

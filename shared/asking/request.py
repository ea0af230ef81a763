"""From a row to a chat request, and from a chat message to the text that scorers read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.data import Row
from shared.chat import with_tools
from shared.scoring import call_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """How rows are asked. The default is greedy and unconstrained."""

    system_prompt: str | None = None
    """Takes the place of the row's own system message."""
    exemplars: tuple[Row, ...] = ()
    """Answered rows shown as earlier turns; each needs a `target`."""
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    response_schema: Mapping[str, Any] | None = None
    """JSON Schema the answer is constrained to."""
    constrain_calls: bool = False
    """Constrain the answer to a call of one of the row's own tools."""
    extra_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said."""

    text: str
    """The answer as scorers read it; a tool call is `{"name": ..., "arguments": {...}}`."""
    latency_ms: float
    """End to end, of the attempt that succeeded, when the answer was first given."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None
    cached: bool = False
    requests: int = 1
    """How many requests it took; tokens and latency are of all of them."""


def chat_messages(row: Row, options: AskOptions) -> list[dict[str, str]]:
    """System prompt, exemplars as earlier turns, then the row's own turns.

    An exemplar's tools are written into its own turn, as `shared.chat` writes the row's.
    """
    turns = [message.model_dump() for message in row.messages]
    system = [turn for turn in turns if turn["role"] == "system"]
    if options.system_prompt is not None:
        system = [{"role": "system", "content": options.system_prompt}]
    shown: list[dict[str, str]] = []
    for exemplar in options.exemplars:
        if exemplar.target is None:
            raise ValueError(f"exemplar {exemplar.id} has no target")
        asked = [m.model_dump() for m in exemplar.messages if m.role != "system"]
        shown += [*with_tools(asked, exemplar.tools)]
        shown.append({"role": "assistant", "content": exemplar.target})
    return [*system, *shown, *(turn for turn in turns if turn["role"] != "system")]


def chat_request(row: Row, options: AskOptions) -> dict[str, Any]:
    """The body of `POST /chat/completions`, less the model's name."""
    body: dict[str, Any] = {
        "messages": chat_messages(row, options),
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
    }
    if options.seed is not None:
        body["seed"] = options.seed
    if row.tools:
        body["tools"] = [dict(tool) for tool in row.tools]
    schema = options.response_schema
    if options.constrain_calls and row.tools:
        schema = call_schema(row.tools)
    if schema is not None:
        named = {"name": "answer", "schema": dict(schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def call_text(content: str | None, tool_calls: Sequence[Mapping[str, Any]] | None) -> str:
    """The answer's text from either half of an assistant message.

    Tool calls win over content, since they are what a client acts on. One call becomes the
    canonical call text; several keep the API's form, which no scorer takes for one call.
    """
    if not tool_calls:
        return content or ""
    calls = [_plain_call(call.get("function") or {}) for call in tool_calls]
    return json.dumps(calls[0] if len(calls) == 1 else {"tool_calls": calls}, ensure_ascii=False)


def _plain_call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # else it stays text, and is scored as what it is
            arguments = json.loads(arguments)
    return {"name": function.get("name"), "arguments": arguments}

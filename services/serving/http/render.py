"""Engine events as OpenAI objects."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from services.serving.boundary import ToolCall, tool_call
from services.serving.engine.port import Finished, TokenLogprob


def usage(finished: Sequence[Finished]) -> dict[str, Any]:
    """Token counts over all sequences of a request."""
    prompt = sum(f.prompt_tokens for f in finished)
    completion = sum(f.completion_tokens for f in finished)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(f.cached_tokens for f in finished)},
    }


def wire_call(call: ToolCall) -> dict[str, Any]:
    """A `tool_calls` entry."""
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
    }


def message(
    text: str, tools: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], ToolCall | None]:
    """The assistant's message. A tool call keeps its raw text in `content`."""
    call = tool_call(text, tools) if tools else None
    content: dict[str, Any] = {"role": "assistant", "content": text}
    if call is not None:
        content["tool_calls"] = [wire_call(call)]
    return content, call


def chat_logprobs(tokenizer: Any, items: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [
            {
                **entry(item.id, item.logprob),
                "top_logprobs": [entry(token, value) for token, value in item.top],
            }
            for item in items
        ],
        "refusal": None,
    }


def completion_logprobs(tokenizer: Any, items: Sequence[TokenLogprob | int]) -> dict[str, Any]:
    """`choices[].logprobs` of a completion; an int is a token that nothing precedes.

    `top_logprobs` always holds the token itself, as OpenAI's does.
    """
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    at = 0
    for item in items:
        text = tokenizer.decode([item if isinstance(item, int) else item.id])
        tokens.append(text)
        offsets.append(at)
        at += len(text)
        if isinstance(item, int):
            values.append(None)
            tops.append(None)
            continue
        top: dict[str, float] = {}
        for token, value in (*item.top, (item.id, item.logprob)):
            top.setdefault(tokenizer.decode([token]), value)
        values.append(item.logprob)
        tops.append(top)
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }

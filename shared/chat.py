"""How a chat request becomes text, the same at training and at serving.

Models whose chat template has no place for tools get the function signatures in the last user turn.
Training renders its rows through this module and serving its requests, so that the served prompt is
the trained prompt, token for token (G2 re-checks it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class ChatTokenizer(Protocol):
    """What we need of a Hugging Face tokenizer."""

    chat_template: str | None

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def __call__(self, text: str, **kwargs: Any) -> Any: ...


def signature(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The function of an OpenAI `tools` entry: name, description, parameters."""
    function = tool.get("function", tool)
    return {key: function[key] for key in ("name", "description", "parameters") if key in function}


def with_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """`messages` with the tools' signatures ahead of the last user turn's text."""
    turns = [dict(message) for message in messages]
    if not tools:
        return turns
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        raise ValueError("tools need a user message to answer")
    listed = "\n".join(json.dumps(signature(tool), ensure_ascii=False) for tool in tools)
    noun = "this function" if len(tools) == 1 else "one of these functions"
    turns[last]["content"] = f"You can call {noun}:\n{listed}\n\nRequest: {turns[last]['content']}"
    return turns


def render(
    tokenizer: ChatTokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The prompt text, ending where the assistant's answer begins."""
    template = tokenizer.chat_template or ""
    if tools and "tools" in template:
        text = tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            tools=[dict(t) for t in tools],
            tokenize=False,
            add_generation_prompt=True,
        )
    else:
        text = tokenizer.apply_chat_template(
            with_tools(messages, tools), tokenize=False, add_generation_prompt=True
        )
    return str(text)


def prompt_ids(
    tokenizer: ChatTokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    begun: str = "",
) -> list[int]:
    """The prompt's token ids, `begun` the answer's beginning.

    The template writes the special tokens, the tokenizer adds none.
    """
    text = render(tokenizer, messages, tools) + begun
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [int(i) for i in ids]

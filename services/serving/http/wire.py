"""The OpenAI API's requests, as far as this server honours them.

Unknown fields are ignored, as OpenAI's clients send many.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.telemetry import FeedbackKind


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StreamOptions(_Wire):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool = False


class StructuredOutputs(_Wire):
    """Exactly one of them: what the answer must satisfy as a whole."""

    json_schema: dict[str, Any] | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = Field(default=None, min_length=1)
    grammar: str | None = None
    """Context-free, in Lark's notation."""

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        if (
            sum(v is not None for v in (self.json_schema, self.regex, self.choice, self.grammar))
            != 1
        ):
            raise ValueError("give exactly one of json, regex, choice and grammar")
        return self


class _Generate(_Wire):
    model: str
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(default=1, ge=1, le=128)
    """Answers to each prompt; more than one cannot stream."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[int, float] | None = None
    structured_outputs: StructuredOutputs | None = None
    """vLLM's name for constrained decoding."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    ignore_eos: bool = False
    timeout_s: float | None = Field(default=None, gt=0)
    """Ours: the request fails if it takes longer, waiting included."""

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Document(_Wire):
    """A retrieved passage that the messages hold already; the answer is held against it."""

    text: str


class ChatRequest(_Generate):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    logprobs: bool | None = None
    continue_final_message: bool = False
    """The last message is the answer's beginning, to be gone on with (vLLM's name for it)."""
    documents: list[Document] = Field(default_factory=list)
    """Ours: `[1]` in the answer cites the first."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class CompletionRequest(_Generate):
    """POST /v1/completions. `prompt`: text, texts, token ids, or lists of token ids."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(default=16, ge=0)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)


class AdapterRequest(_Wire):
    """POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM names them."""

    lora_name: str
    """The id of a registered adapter."""
    lora_path: str | None = None
    """Refused: a registered adapter's files come from the artifact store."""


class FeedbackRequest(_Wire):
    """POST /v1/feedback: what a person made of an answer."""

    request_id: str = Field(min_length=1, max_length=200)
    """The answer's `X-Request-Id`."""
    model: str
    """The deployment that was asked."""
    answered_by: str | None = None
    """The answer's `X-Sluice-Model`; by default what the deployment answers with now."""
    kind: FeedbackKind

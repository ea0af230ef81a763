"""The platform's own questions to serving, under `/v1/internal/` and for service keys only."""

from __future__ import annotations

from pydantic import Field, JsonValue

from contracts.base import Digest, Frozen


class EngineDescription(Frozen):
    """`GET /v1/internal/engine`: what this engine loaded and can take."""

    base: Digest
    tokenizer: Digest
    max_lora_rank: int
    target_modules: tuple[str, ...]
    dtype: str
    engine: str
    """Implementation choices, for people."""


class FingerprintQuestion(Frozen):
    """`POST /v1/internal/fingerprint`: what follows this prompt?"""

    model: str
    messages: tuple[dict[str, JsonValue], ...] = Field(min_length=1)
    tools: tuple[dict[str, JsonValue], ...] = ()
    token_ids: tuple[int, ...] = Field(min_length=1, max_length=1000)
    """Whose next-token log-probabilities to give."""


class FingerprintAnswer(Frozen):
    """The prompt as the engine renders it, and the asked log-probabilities, in order."""

    prompt_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

"""The platform's own questions to serving, under `/v1/internal/` and for service keys only."""

from __future__ import annotations

from pydantic import JsonValue

from contracts.base import Digest, Frozen


class EngineDescription(Frozen):
    """`GET /v1/internal/engine`: what this engine loaded and can take."""

    base: Digest
    tokenizer: Digest
    max_lora_rank: int
    target_modules: tuple[str, ...]
    engine: str
    """Name and version, for the card."""


class FingerprintQuestion(Frozen):
    """`POST /v1/internal/fingerprint`: what follows this prompt?"""

    model: str
    messages: tuple[dict[str, JsonValue], ...]
    tools: tuple[dict[str, JsonValue], ...] = ()
    token_ids: tuple[int, ...]
    """Whose next-token log-probabilities to give."""


class FingerprintAnswer(Frozen):
    """The prompt as the engine renders it, and the asked log-probabilities, in order."""

    prompt_token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

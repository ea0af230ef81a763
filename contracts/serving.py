"""What serving says of itself.

The platform's own questions are under `/v1/internal/`, for service keys only; a tenant lists its
adapters under `/v1/adapters`.
"""

from __future__ import annotations

from typing import Literal

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


class ServedAdapter(Frozen):
    """A registered adapter as one engine sees it; `resident` only where it is loaded."""

    id: str
    tenant: str
    adapter: Digest
    """The artifact tree."""
    run: str | None = None
    deployments: tuple[str, ...] = ()
    """Those that answer from it, or try it."""
    resident: bool = False
    pinned: bool = False
    tier: Literal["pool", "host", "disk"] | None = None
    rank: int | None = None
    bytes: int | None = None
    """Of its weights in memory."""
    target_modules: tuple[str, ...] = ()


class AdapterListing(Frozen):
    """`GET /v1/adapters`: what the caller's tenant may name, and which of it is loaded."""

    object: Literal["list"] = "list"
    data: tuple[ServedAdapter, ...]
    max_lora_rank: int

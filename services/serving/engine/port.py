"""The engine port: what serving asks of whatever runs the model.

A request goes in, events come out: `PromptScored` if the prompt's own log-probabilities were asked
for, one `Token` per generated token, and `Finished` last. Log-probabilities are natural, of the
model's own distribution (before temperature, truncation and constraints).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from contracts.base import Digest
from shared.errors import PermanentError, TransientError

FinishReason = Literal["stop", "length", "cancelled"]
Tier = Literal["pool", "host", "disk"]


class Overloaded(TransientError):
    """The waiting queue is full."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, mend=f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(TransientError):
    """The request's deadline passed before it finished."""


class ContextExceeded(PermanentError):
    """The prompt does not fit the model's context."""


class AdapterRefused(PermanentError):
    """An adapter folder is unsafe, malformed or made for another base."""


class AdapterNotLoaded(PermanentError):
    """No adapter with this digest is loaded."""


class ConstraintRefused(PermanentError):
    """A JSON Schema cannot be compiled into a decoding constraint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. `temperature` 0 is greedy; `top_k` 0 is all."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    """Taken once from the logit of every token the answer holds already."""
    frequency_penalty: float = 0.0
    """Taken as often as the answer holds the token."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, added to its logit)."""

    @property
    def shifts(self) -> bool:
        """Whether logits are changed before the token is drawn."""
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One sequence to continue or to score."""

    prompt: tuple[int, ...]
    max_tokens: int
    """0 scores the prompt only."""
    adapter: Digest | None = None
    """Content digest of a loaded adapter; None is the base."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """Alternatives per generated token; 0 is the chosen token's alone."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    next_token_ids: tuple[int, ...] = ()
    """Score these ids as the token after the prompt."""
    json_schema: dict[str, Any] | None = None
    """Only answers that satisfy it can be generated."""
    regex: str | None = None
    """Only answers that match it as a whole can be generated."""
    grammar: str | None = None
    """The same for a context-free grammar in Lark's notation. One of the three at most."""
    ignore_eos: bool = False
    deadline_s: float | None = None
    """From submission, waiting included."""
    tenant: str = ""
    """Whose it is: tenants take turns while requests wait."""
    priority: int = 0
    """Lower first; mirrored traffic waits behind users'."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability and the most likely alternatives, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PromptScored:
    """Log-probabilities of the prompt: None for the first token, which nothing precedes."""

    tokens: tuple[TokenLogprob | None, ...]
    next_token: tuple[float, ...]
    """Of `GenerationRequest.next_token_ids`, in their order."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token; the end token too where log-probabilities are asked for.

    `text` is what became certain with it: stop sequences and incomplete characters are held back.
    """

    id: int
    text: str
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The end. `text` is held-back text that turned out to belong to the answer."""

    reason: FinishReason
    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens taken from the prefix cache."""
    answer_logprob: float | None = None
    """Sum over the generated tokens, nats; None if the engine does not say."""
    waited_s: float = 0.0
    """In the engine's line, or paused for requests of a lower priority value."""


GenerationEvent = PromptScored | Token | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterInfo:
    """A loaded adapter."""

    digest: Digest
    """Over `adapter_config.json` and `adapter_model.safetensors`."""
    rank: int
    bytes: int
    target_modules: tuple[str, ...]
    tier: Tier = "pool"
    """Where its weights are: in the pool, ready to run; in host memory; on disk."""
    pinned: bool = False
    """It stays in the pool whatever else wants room."""

    @property
    def resident(self) -> bool:
        """Whether it is in the pool."""
        return self.tier == "pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine holds right now, and what it did since it started."""

    running: int
    waiting: int
    page_bytes: int
    pages: int
    """Of the pool. They are free, cached, or held by running requests and adapters."""
    pages_free: int
    pages_cached: int
    """Beginnings and adapters that nobody runs: what is evicted when pages are wanted."""
    pages_held: int
    pages_of_adapters: int
    waste: float
    """Share of the pages of adapters and running sequences in which nothing is written."""
    adapters_in_pool: int
    adapters_on_host: int
    adapters_on_disk: int
    adapters_pinned: int
    host_bytes: int
    evictions: int
    preemptions: int
    prefix_hits: int
    """Blocks of prompts that were found computed."""
    prefix_misses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is being served."""

    label: str
    base: Digest
    """Digest of the base checkpoint (`shared.models.base_digest`)."""
    tokenizer: Digest
    max_lora_rank: int
    target_modules: tuple[str, ...]
    """Linear layers an adapter may touch."""
    dtype: str
    vocab_size: int
    context: int
    details: dict[str, str] = field(default_factory=dict)
    """Implementation choices (`kernels`), for humans."""


class Generation(Protocol):
    """A submitted request: iterate its events; leaving early should `cancel`."""

    def __aiter__(self) -> AsyncIterator[GenerationEvent]: ...

    def cancel(self) -> None: ...


class Engine(Protocol):
    """A model behind a queue."""

    @property
    def ready(self) -> bool: ...

    @property
    def info(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Any: ...

    async def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request.

        Raises:
            Overloaded: the queue is full.
            ContextExceeded: the prompt does not fit.
            AdapterNotLoaded: `request.adapter` is unknown.
            ConstraintRefused: `request.json_schema` cannot be compiled.

        """
        ...

    def load_adapter(self, folder: Path, *, base: Digest | None = None) -> AdapterInfo:
        """Load, or find already loaded, a PEFT adapter folder. Raises AdapterRefused."""
        ...

    def unload_adapter(self, digest: Digest) -> None:
        """Forget an adapter; requests already running keep it to their end."""
        ...

    def adapters(self) -> tuple[AdapterInfo, ...]: ...

    def pin_adapter(self, digest: Digest, pinned: bool) -> None:
        """Keep an adapter ready to run whatever else wants room, or no longer.

        Raises:
            AdapterNotLoaded: there is none with this digest.
            AdapterRefused: the pinned adapters would leave too little room for requests.
            Overloaded: running requests hold the room it needs.

        """
        ...

    def stats(self) -> EngineStats | None:
        """What it holds now; None if the engine does not say."""
        ...

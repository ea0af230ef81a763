"""One request inside the engine, from submission to its last event."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from services.serving.engine.adapters import LoadedAdapter
from services.serving.engine.constraint import Constraint
from services.serving.engine.delivery import EventStream
from services.serving.engine.key_values import block_keys
from services.serving.engine.port import (
    Finished,
    GenerationRequest,
    TokenLogprob,
)
from services.serving.engine.residency import Kept
from services.serving.engine.text import TextStream


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """The engine's side of a request. Changed by the engine's thread alone."""

    request: GenerationRequest
    stream: EventStream
    adapter: Kept | None
    constraint: Constraint | None
    draws: torch.Generator | None
    text: TextStream
    limit: int
    """Tokens it may generate, its own wish and the context considered."""
    keys: list[bytes] = field(default_factory=list)
    """Of the blocks of the first `keyed` tokens, which may be shared (`block_keys`)."""
    keyed: int = 0
    weights: LoadedAdapter | None = None
    """The adapter's, while the sequence runs."""
    submitted: float = field(default_factory=time.monotonic)
    admitted: bool = False
    """Whether it ran already; it may wait again, when others needed its pages."""
    waited_s: float = 0.0
    """In the line, or paused for others."""
    _paused_at: float | None = field(default_factory=time.monotonic)
    slot: int = -1
    computed: int = 0
    """Leading tokens whose keys and values are in the slot's pages."""
    cached: int = 0
    generated: list[int] = field(default_factory=list)
    logprob: float = 0.0
    """Sum over `generated`, nats, by the unconstrained distribution at temperature 1."""
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=lambda: [None])

    def __post_init__(self) -> None:
        self._name_blocks()

    @property
    def length(self) -> int:
        """Tokens there are: the prompt, and what was generated."""
        return len(self.request.prompt) + len(self.generated)

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.request.prompt, *self.generated)

    def pause(self, now: float) -> None:
        """Others have the turn; `now` is monotonic time, s."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        if self._paused_at is not None:
            self.waited_s += max(0.0, now - self._paused_at)
            self._paused_at = None

    @property
    def prefilling(self) -> bool:
        """More than the newest generated token is to be computed."""
        return not self.generated or self.computed < self.length - 1

    @property
    def group(self) -> str:
        """What rows are sorted by."""
        return self.request.adapter or ""

    def step_back(self) -> None:
        """Its pages are gone: everything is to be computed again."""
        self.computed, self.slot = 0, -1
        self.pause(time.monotonic())
        if not self.generated:
            self.prompt_logprobs = [None]
        self._name_blocks()

    def _name_blocks(self) -> None:
        """What is scored must be computed, so nothing of it is shared."""
        scored = self.request.prompt_logprobs is not None and not self.generated
        self.keyed = 0 if scored else self.length - 1
        self.keys = block_keys(self.request, self.tokens[: self.keyed])

    @property
    def expired(self) -> bool:
        limit = self.request.deadline_s
        return limit is not None and time.monotonic() - self.submitted > limit

    def finish(self, reason: Any, *, text: str = "") -> None:
        self.stream.push(
            Finished(
                reason,
                text,
                len(self.request.prompt),
                len(self.generated),
                self.cached,
                min(self.logprob, 0.0),
                self.waited_s,
            )
        )

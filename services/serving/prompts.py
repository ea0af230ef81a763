"""Prompt perplexity: how surprising a request is to the frozen base (M15, ERRATA 13).

The base is the yardstick because it stays the same whatever answers. A prompt is scored after its
answer, behind all users' requests, and only one in ten seconds: a day has enough of those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from services.serving.engine.port import Engine, GenerationRequest, PromptScored
from services.serving.execution import ASIDE_PRIORITY

SCORED_EVERY_S = 10.0
LONGEST = 4096
"""Tokens; what is longer costs users more than its score is worth."""


class PromptScorer:
    """Scores a sample of prompts on the engine, once there is one."""

    def __init__(
        self,
        engine: Callable[[], Engine | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._clock = engine, clock
        self._next = 0.0

    async def score(self, prompt: Sequence[int]) -> float | None:
        """The sum of the log-probabilities of all its tokens but the first, nats, at most 0.

        None for a prompt that is not of the sample. Raises what the engine raises.
        """
        engine = self._engine()
        if engine is None or not 2 <= len(prompt) <= LONGEST or self._clock() < self._next:
            return None
        self._next = self._clock() + SCORED_EVERY_S
        asked = GenerationRequest(
            prompt=tuple(prompt), max_tokens=0, prompt_logprobs=0, priority=ASIDE_PRIORITY
        )
        async for event in await engine.submit(asked):
            if isinstance(event, PromptScored):
                return min(0.0, sum(token.logprob for token in event.tokens if token is not None))
        return None

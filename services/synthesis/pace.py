"""How fast an endpoint may be asked, and what its answers have cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


class Pace:
    """At most `rate_per_minute` requests, evenly spaced; None is no limit."""

    def __init__(
        self,
        rate_per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._spacing_s = 60.0 / rate_per_minute if rate_per_minute else 0.0
        self._free_at = 0.0
        self._clock = clock
        self._sleep = sleep

    async def turn(self) -> None:
        """Wait until the next request may go."""
        if not self._spacing_s:
            return
        now = self._clock()
        at = max(now, self._free_at)
        self._free_at = at + self._spacing_s
        if at > now:
            await self._sleep(at - now)


@dataclass(slots=True)
class Spending:
    """What answers cost, each counted once, whether it was paid now or before a restart."""

    maximum: float | None = None
    calls: int = 0
    """Answers paid for by this process."""
    tokens: int = 0
    cost: float = 0.0
    _counted: set[str] = field(default_factory=set)

    def add(self, key: str, tokens: int, price_per_mtok: float) -> None:
        if key in self._counted:
            return
        self._counted.add(key)
        self.tokens += tokens
        self.cost += tokens * price_per_mtok / 1e6

    @property
    def exhausted(self) -> bool:
        return self.maximum is not None and self.cost >= self.maximum

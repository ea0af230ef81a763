"""Server-sent events: a page's fragment, again whenever it changes; a run's facts, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from services.console.projection import Projection

QUIET_S = 15.0
"""How long a stream may be silent before it is rendered again: ages move on, proxies stay awake."""
PAUSE_S = 0.3
"""At most one fragment in this time, however fast progress comes."""


def event(name: str, data: str, *, id: str | None = None) -> str:
    """One server-sent event; every line of `data` gets its own field."""
    lines = [f"event: {name}"]
    if id is not None:
        lines.append(f"id: {id}")
    lines += [f"data: {line}" for line in data.splitlines() or [""]]
    return "\n".join(lines) + "\n\n"


async def fragments(projection: Projection, render: Callable[[], str]) -> AsyncIterator[str]:
    """`fragment` events: at once, then whenever the rendering differs from the last one sent."""
    sent: str | None = None
    with projection.bell() as bell:
        while True:
            bell.clear()
            if (now := render()) != sent:
                sent = now
                yield event("fragment", now)
            else:
                yield ": still here\n\n"
            await _ring_or_quiet(bell)
            await asyncio.sleep(PAUSE_S)


async def items(
    projection: Projection, since: int, newer: Callable[[int], list[tuple[int, str]]]
) -> AsyncIterator[str]:
    """`fact` events after sequence `since`. `newer(seq)` gives the sequence and JSON of each."""
    with projection.bell() as bell:
        while True:
            bell.clear()
            found = newer(since)
            for seq, data in found:
                since = seq
                yield event("fact", data, id=str(seq))
            if not found:
                yield ": still here\n\n"
            await _ring_or_quiet(bell)


async def _ring_or_quiet(bell: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(QUIET_S):
            await bell.wait()
    except TimeoutError:
        return

"""Events on their way from the engine's thread to its callers' event loops.

A step makes an event for every running sequence. Each hand-over to a loop wakes it, and whoever
wakes competes with the engine's next step for the interpreter, so a step's events travel together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from services.serving.engine.port import Finished, GenerationEvent

Event = GenerationEvent | Exception


class Deliveries:
    """What the engine's thread has said since it last sent. Safe from any thread."""

    def __init__(self) -> None:
        self._said: deque[tuple[EventStream, Event]] = deque()

    def add(self, stream: EventStream, event: Event) -> None:
        self._said.append((stream, event))

    def send(self) -> None:
        """Hand everything over, one call for each loop. A loop that is gone misses nothing."""
        bags: dict[asyncio.AbstractEventLoop, list[tuple[EventStream, Event]]] = {}
        while self._said:
            stream, event = self._said.popleft()
            bags.setdefault(stream.loop, []).append((stream, event))
        for loop, bag in bags.items():
            with suppress(RuntimeError):  # it closed, perhaps this very moment
                loop.call_soon_threadsafe(_unpack, bag)


def _unpack(bag: list[tuple[EventStream, Event]]) -> None:
    for stream, event in bag:
        stream.put(event)


class EventStream:
    """The caller's side of a request: an async iterator fed by the engine."""

    def __init__(self, say: Callable[[EventStream, Event], None] | None = None) -> None:
        """To be made in the caller's loop; `say` takes events there (`Deliveries.add`).

        Without it the engine itself runs in that loop.
        """
        self.loop = asyncio.get_running_loop()
        self._say = say
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.cancelled = False

    def cancel(self) -> None:
        """Ask the engine to stop; it answers with `Finished("cancelled")`."""
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        while True:
            event = await self._queue.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Finished):
                return

    def push(self, event: Event) -> None:
        """From the engine."""
        if self._say is None:
            self.put(event)
        else:
            self._say(self, event)

    def put(self, event: Event) -> None:
        """In the caller's loop."""
        self._queue.put_nowait(event)

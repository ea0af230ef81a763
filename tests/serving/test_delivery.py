"""Events from the engine's thread: in order, and one hand-over a step for each loop."""

import asyncio
import threading

import pytest

from services.serving.engine.delivery import Deliveries, EventStream
from services.serving.engine.port import Finished, Token


def finished():
    return Finished("stop", "", 1, 1, 0)


async def heard(stream):
    return [event async for event in stream]


async def test_a_steps_events_reach_their_streams_in_order_by_one_call(monkeypatch):
    deliveries = Deliveries()
    streams = [EventStream(deliveries.add) for _ in range(3)]
    loop = asyncio.get_running_loop()
    calls = []
    hand_over = loop.call_soon_threadsafe
    monkeypatch.setattr(
        loop, "call_soon_threadsafe", lambda *given: (calls.append(given), hand_over(*given))
    )

    def step():
        for number, stream in enumerate(streams):
            stream.push(Token(number, "a"))
            stream.push(Token(number, "b"))
            stream.push(finished())
        deliveries.send()

    engine = threading.Thread(target=step)
    engine.start()
    answers = [await heard(stream) for stream in streams]
    engine.join()
    assert len(calls) == 1
    for number, answer in enumerate(answers):
        assert answer == [Token(number, "a"), Token(number, "b"), finished()]


async def test_an_error_is_raised_where_the_stream_is_read():
    deliveries = Deliveries()
    stream = EventStream(deliveries.add)
    stream.push(Token(1, "a"))
    stream.push(ValueError("the step failed"))
    deliveries.send()
    with pytest.raises(ValueError, match="the step failed"):
        await heard(stream)


def test_a_caller_whose_loop_is_gone_stops_nobody_else():
    deliveries = Deliveries()

    async def caller():
        return EventStream(deliveries.add)

    asyncio.run(caller()).push(finished())

    async def another():
        stream = EventStream(deliveries.add)
        stream.push(finished())
        deliveries.send()
        return await heard(stream)

    assert asyncio.run(another()) == [finished()]

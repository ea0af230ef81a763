"""The line before the engine: priority first, then turns between tenants."""

from __future__ import annotations

from collections import Counter
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.engine.port import Overloaded
from services.serving.engine.waiting import WaitingLine

CLOCK = count()


class Stream(list[Exception]):
    push = list.append


def request(tenant: str, *, tokens: int = 10, priority: int = 0) -> Any:
    return SimpleNamespace(
        request=SimpleNamespace(tenant=tenant, priority=priority, prompt=(1,)),
        limit=tokens - 1,
        stream=Stream(),
        admitted=False,
        submitted=next(CLOCK),
    )


def served(line: WaitingLine, number: int) -> list[str]:
    """The tenants of the next `number` requests, admitted one at a time."""
    order = []
    for _ in range(number):
        sequence = line.snapshot()[0]
        line.admit(sequence)
        order.append(sequence.request.tenant)
    return order


def test_a_tenant_with_one_request_passes_anothers_backlog() -> None:
    line = WaitingLine(100)
    for _ in range(50):
        line.put(request("greedy"))
    served(line, 5)
    line.put(request("modest"))
    assert "modest" in served(line, 2)


def test_turns_are_counted_in_tokens() -> None:
    line = WaitingLine(100)
    for _ in range(20):
        line.put(request("long", tokens=40))
        line.put(request("short", tokens=10))
    assert Counter(served(line, 15)) == {"short": 12, "long": 3}


def test_nobody_saves_up_turns_while_away() -> None:
    line = WaitingLine(100)
    for _ in range(30):
        line.put(request("busy"))
    served(line, 20)
    for _ in range(10):
        line.put(request("rested"))
    assert Counter(served(line, 10)) == {"busy": 5, "rested": 5}


def test_a_lower_priority_waits_whoever_it_is_from() -> None:
    line = WaitingLine(10)
    line.put(request("a", priority=10))
    line.put(request("b"))
    line.put(request("b"))
    assert served(line, 3) == ["b", "b", "a"]


def test_a_full_line_makes_room_for_who_has_less_in_it() -> None:
    line = WaitingLine(3)
    crowd = [request("greedy") for _ in range(3)]
    for sequence in crowd:
        line.put(sequence)
    with pytest.raises(Overloaded):
        line.put(request("greedy"))
    line.put(request("modest"))
    assert isinstance(crowd[2].stream[0], Overloaded)
    assert Counter(s.request.tenant for s in line.snapshot()) == {"greedy": 2, "modest": 1}
    with pytest.raises(Overloaded):  # 2 against 1 is fair enough
        line.put(request("modest"))


def test_who_ran_already_goes_on_first_counts_once_and_is_never_pushed_out() -> None:
    line = WaitingLine(2)
    first, second = request("greedy", tokens=90), request("greedy")
    line.put(first)
    line.put(second)
    line.admit(first)
    line.put(request("modest"))
    line.give_back(first)
    assert line.snapshot()[0] is first
    line.admit(first)
    assert served(line, 1) == ["greedy"]  # it has taken 90, as modest when it came; not 180
    for _ in range(2):
        ran = request("greedy")
        ran.admitted = True
        line.give_back(ran)
    with pytest.raises(Overloaded):
        line.put(request("third"))
    assert len(line.snapshot()) == 3


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(2, 60)), min_size=2, max_size=60),
    st.integers(1, 40),
)
def test_backlogged_tenants_never_drift_apart_by_more_than_their_largest_requests(
    asked: list[tuple[str, int]], number: int
) -> None:
    line = WaitingLine(1000)
    for tenant, tokens in asked:
        line.put(request(tenant, tokens=tokens))
    taken: Counter[str] = Counter()
    largest = max(tokens for _, tokens in asked)
    for _ in range(min(number, len(asked))):
        sequence = line.snapshot()[0]
        line.admit(sequence)
        taken[sequence.request.tenant] += sequence.limit + 1
        waiting = {s.request.tenant for s in line.snapshot()}
        if len(waiting) > 1:
            assert max(taken[t] for t in waiting) - min(taken[t] for t in waiting) <= largest

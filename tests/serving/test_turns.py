"""Mirrored requests never lengthen a user's step, and get what they are owed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.serving.engine.port import Finished, GenerationRequest, Sampling
from services.serving.engine.sequence import Sequence
from services.serving.engine.turns import BACKGROUND_TOKENS, OWED, Turns

USER_STEP_S, BACKGROUND_STEP_S = 0.030, 0.050


def sequence(priority: int) -> Any:
    """As the engine's, as far as turns look at it."""
    made = SimpleNamespace(
        request=SimpleNamespace(priority=priority), waited_s=0.0, _paused_at=None
    )
    made.pause = lambda now: Sequence.pause(made, now)
    made.resume = lambda now: Sequence.resume(made, now)
    return made


class Steps:
    """An engine whose steps take as long as they say."""

    def __init__(self) -> None:
        self.now = 100.0
        self.turns = Turns(clock=lambda: self.now)
        self.spent = {"users": 0.0, "background": 0.0}

    def step(self, running: list[Any]) -> list[int]:
        """Priorities of those that took part."""
        chosen, budget = self.turns.next(running, 512)
        priorities = [s.request.priority for s in chosen]
        background = bool(priorities) and min(priorities) > 0
        if background:
            assert budget <= BACKGROUND_TOKENS + len(chosen)
        took = BACKGROUND_STEP_S if background else USER_STEP_S
        self.spent["background" if background else "users"] += took
        self.now += took
        return priorities


@pytest.mark.req("G8")
def test_users_and_mirrors_never_share_a_step_and_mirrors_take_no_more_than_they_are_owed() -> None:
    steps, running = Steps(), [sequence(p) for p in (0, 10, 0, 10, 10)]
    for number in range(20_000):
        taking_part = steps.step(running)
        assert set(taking_part) in ({0}, {10})
        assert len(taking_part) == taking_part.count(0) or 0 not in taking_part
        most = OWED * steps.spent["users"] + BACKGROUND_STEP_S
        assert steps.spent["background"] <= most, number
    assert steps.spent["background"] >= 0.9 * OWED * steps.spent["users"]  # nor do they starve


@pytest.mark.req("G8")
def test_a_user_who_arrives_waits_for_one_background_chunk_at_most() -> None:
    steps, mirror, user = Steps(), sequence(10), sequence(0)
    for _ in range(1000):  # a long idle time earns the background nothing against users
        assert steps.step([mirror]) == [10]
    for _ in range(int(BACKGROUND_STEP_S / (OWED * USER_STEP_S))):
        assert steps.step([mirror, user]) == [0]
    assert steps.step([mirror, user]) in ([0], [10])


@pytest.mark.req("G8")
def test_the_time_a_mirror_stands_aside_is_on_its_account_alone() -> None:
    steps, mirror, user = Steps(), sequence(10), sequence(0)
    steps.step([mirror])
    for _ in range(10):
        steps.step([mirror, user])
    steps.step([mirror])
    assert mirror.waited_s == pytest.approx(10 * USER_STEP_S)
    assert user.waited_s == 0


def test_rest_forgets_what_was_owed_and_counts_no_idle_time() -> None:
    steps, mirror, user = Steps(), sequence(10), sequence(0)
    for _ in range(60):
        steps.step([mirror, user])
    steps.turns.rest()
    steps.now += 3600
    for _ in range(50):
        assert steps.step([mirror, user]) == [0]


@pytest.mark.req("G8")
async def test_the_engine_computes_a_users_answer_in_steps_of_its_own(engine, monkeypatch) -> None:
    """A real engine: a mirror is under way when a user comes, and only ever in between."""
    steps: list[tuple[set[int], set[int]]] = []
    choose = Turns.next

    def watched(turns, running, budget):
        chosen, budget = choose(turns, running, budget)
        steps.append(({s.request.priority for s in running}, {s.request.priority for s in chosen}))
        return chosen, budget

    monkeypatch.setattr(Turns, "next", watched)

    async def ask(priority: int, tokens: int) -> Finished:
        stream = await engine.submit(
            GenerationRequest(
                prompt=tuple(range(5, 105)),
                max_tokens=tokens,
                sampling=Sampling(temperature=0),
                ignore_eos=True,
                priority=priority,
            )
        )
        return [event async for event in stream][-1]

    mirror = asyncio.create_task(ask(10, 60))
    while not steps:
        await asyncio.sleep(0.001)
    user = await ask(0, 30)
    late = await mirror
    together = [chosen for running, chosen in steps if running == {0, 10}]
    assert together, "they were there at the same time"
    assert all(chosen in ({0}, {10}) for chosen in together)
    assert user.completion_tokens == 30
    assert late.completion_tokens == 60
    assert late.waited_s > user.waited_s

"""Real requests through serving's API: injected regressions end, healthy candidates serve.

The long form is `make rollouts`: twenty regressions and fifty healthy candidates.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from benchmarks.candidates import HEALTHY, Candidate, injected
from benchmarks.rollouts import world
from services.registry.app import create_app as create_registry
from services.rollout.app import create_app

CHOSEN = ("schema-shadow", "quality-canary", "safety-canary-0", "refusals-canary")


def test_twenty_regressions_of_nine_kinds_are_injected() -> None:
    names = [one.name for one in injected()]
    assert len(names) == len(set(names)) == 20
    assert len({name.split("-")[0] for name in names}) == 9


@pytest.mark.req("G8")
@pytest.mark.req("G9")
async def test_regressions_are_rolled_back_in_time_and_healthy_candidates_serve(tmp_path) -> None:
    harmful = [one for one in injected() if one.name in CHOSEN]
    good = [Candidate(name=f"healthy-{i}", behaviour=HEALTHY, seed=90 + i) for i in range(2)]
    async with (
        world(tmp_path) as made,
        create_registry(made.settings).running(),
        create_app(made.settings).running(),
    ):
        await asyncio.gather(*(made.roll_out(one) for one in (*harmful, *good)))
        for one in harmful:
            assert one.in_time, one.line
            assert made.directory.deployment("acme", one.name).stable == "base"
        for one in good:
            assert one.run.promoted is not None, one.line
            assert made.directory.deployment("acme", one.name).stable == one.run.promoted.adapter_id


@asynccontextmanager
async def rollout_process(made):
    """A rollout service in a process of its own."""
    own = {"SLUICE_HOME": str(made.settings.home), "SLUICE_NATS_URL": made.settings.nats_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.rollout", env={**os.environ, **own}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.req("G9")
@pytest.mark.req("P3")
async def test_a_rollback_comes_in_time_although_rollout_is_killed_when_the_harm_begins(
    tmp_path,
) -> None:
    (one,) = (replace(c) for c in injected() if c.name == "quality-canary")
    async with world(tmp_path) as made, create_registry(made.settings).running():
        async with rollout_process(made) as first:
            rolling = asyncio.create_task(made.roll_out(one))
            while not one.harming:
                assert not rolling.done()
                await asyncio.sleep(0.01)
            first.kill()
            await first.wait()
        async with rollout_process(made):
            await rolling
        assert one.rolled_back, one.line
        assert one.took_s <= 30 or one.asked <= 200, one.line
        assert made.directory.deployment("acme", one.name).stable == "base"

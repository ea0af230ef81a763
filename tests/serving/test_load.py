"""More adapters than fit, several tenants, one of them greedy: the short form of `make soak`."""

import asyncio
import random
import statistics
import time

import psutil
import pytest

from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import Finished, GenerationRequest, Overloaded, Sampling
from services.serving.execution import Ask, Execution
from services.serving.residency import Residency
from tests.serving import crowd
from tests.serving.live_server import Outcomes

ADAPTERS, SLOTS = 500, 8
POOL_BYTES, HOST_BYTES = 6 << 20, 6 << 20
"""Together less than half of what the adapters weigh."""


@pytest.fixture(scope="module")
def served(base, adapter_folders, tmp_path_factory):
    root = crowd.make_crowd(adapter_folders["c"], tmp_path_factory.mktemp("crowd") / "a", ADAPTERS)
    engine = LlamaEngine(
        base,
        EngineConfig(
            slots=SLOTS, context=64, queue=1000, pool_bytes=POOL_BYTES, host_bytes=HOST_BYTES
        ),
    )
    residency = Residency(engine, lambda digest: root / str(crowd.number_of(digest)))
    yield engine, Execution(engine, residency, Outcomes()), crowd.directory_of(ADAPTERS)
    engine.close()


async def answered(served, number, *, tokens=6):
    """Seconds until the answer of an adapter was whole."""
    _, execution, directory = served
    tenant, began = crowd.tenant_of(number), time.perf_counter()
    route = directory.resolve(
        crowd.adapter_id(number), tenant=tenant, evaluate=False, conversation="c"
    )
    ask = Ask(
        id="r",
        tenant=tenant,
        generation=GenerationRequest(
            prompt=tuple(range(5, 17)),
            max_tokens=tokens,
            sampling=Sampling(temperature=0),
            ignore_eos=True,
        ),
    )
    events = await (await execution.begin(ask, route)).complete()
    assert isinstance(events[-1], Finished)
    assert events[-1].completion_tokens == tokens
    return time.perf_counter() - began


@pytest.mark.req("V1")
@pytest.mark.req("V8")
async def test_five_hundred_adapters_answer_without_failure_in_bounded_memory(served):
    engine, *_ = served
    draws, process = random.Random(3), psutil.Process()

    async def crowded(numbers):
        for start in range(0, len(numbers), 64):
            await asyncio.gather(*(answered(served, n) for n in numbers[start : start + 64]))

    everyone = random.Random(5).sample(range(ADAPTERS), ADAPTERS)
    await crowded(everyone)
    before = process.memory_info().rss
    await crowded([crowd.zipf(ADAPTERS, draws) for _ in range(500)])
    grown = process.memory_info().rss - before
    held = engine.adapters()
    assert len(held) == ADAPTERS
    assert {info.rank for info in held} == set(crowd.RANKS)
    assert {info.tier for info in held} == {"pool", "host", "disk"}
    assert sum(info.bytes for info in held) > 2 * (POOL_BYTES + HOST_BYTES)
    assert grown < 48 << 20, f"grown by {grown / 1e6:.0f} MB"


@pytest.mark.req("V1")
async def test_a_greedy_tenant_delays_itself_and_not_the_others(served):
    greedy = [n for n in range(ADAPTERS) if crowd.tenant_of(n) == "greedy"][:4]
    others = [n for n in range(8) if crowd.tenant_of(n) != "greedy"]
    for number in (*greedy, *others):  # loaded before anybody is timed
        await answered(served, number)
    flood = [asyncio.create_task(answered(served, greedy[i % 4], tokens=12)) for i in range(200)]
    await asyncio.sleep(0.05)
    modest = await asyncio.gather(*(answered(served, n, tokens=12) for n in others for _ in "12"))
    waited = await asyncio.gather(*flood)
    assert max(modest) < statistics.median(waited)


async def test_a_full_line_refuses_the_greedy_and_lets_the_modest_in(base):
    engine = LlamaEngine(base, EngineConfig(slots=1, queue=8))
    try:

        def ask(tenant):
            return GenerationRequest(prompt=(5, 6), max_tokens=60, ignore_eos=True, tenant=tenant)

        async def whole(tenant):
            last = None
            async for event in await engine.submit(ask(tenant)):
                last = event
            return last

        flood = [asyncio.create_task(whole("greedy")) for _ in range(60)]
        await asyncio.sleep(0.02)
        assert isinstance(await whole("modest"), Finished)
        results = await asyncio.gather(*flood, return_exceptions=True)
        refused = [r for r in results if isinstance(r, Overloaded)]
        assert refused
        assert len(refused) + sum(isinstance(r, Finished) for r in results) == len(results)
    finally:
        engine.close()

"""One pool for keys, values and adapters: requests wait or start again, and none fails."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.serving import gauges
from services.serving.engine.adapters import pieces
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import AdapterRefused, GenerationRequest, Sampling
from shared.errors import Misconfigured
from shared.metrics import provider
from tests.serving.backends import expected_tokens
from tests.serving.conftest import make_adapter, run, run_all
from tests.serving.test_engine import prompts

GREEDY = Sampling(temperature=0)
PAGE_BYTES = 2 * 2 * 16 * 8 * 4  # of the tiny model: keys and values, heads, positions, size, fp32
LONGEST = 3 * 512 // 16  # pages of its longest sequence


@contextmanager
def engine_of(base: Path, pages: int, **config: Any) -> Iterator[LlamaEngine]:
    """An engine whose pool has so many pages. Whatever ran, nothing is held in the end."""
    engine = LlamaEngine(
        base,
        EngineConfig(pool_bytes=pages * PAGE_BYTES, slots=8, step_tokens=64, **config),
    )
    try:
        yield engine
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.pages_held) == (0, 0, 0)
        assert stats.pages_free + stats.pages_cached == stats.pages == pages
    finally:
        engine.close()


def ask(prompt: tuple[int, ...], count: int, adapter: str | None = None, **rest: Any) -> Any:
    return GenerationRequest(
        prompt=prompt,
        max_tokens=count,
        adapter=adapter,
        sampling=GREEDY,
        ignore_eos=True,
        **rest,
    )


async def settled(engine: LlamaEngine) -> None:
    """The engine's thread lets go of a request just after it has said its last word."""
    for _ in range(200):
        if not engine.stats().running:
            return
        await asyncio.sleep(0.01)


@pytest.mark.req("V2")
async def test_a_full_pool_makes_the_youngest_start_again_and_changes_no_answer(engine, base):
    requests = [ask(prompt, 120, logprobs=0, next_token_ids=(5,)) for prompt in prompts(8)]
    requests[3] = ask(prompts(8)[3], 120, prompt_logprobs=1)
    requests[5] = ask(
        prompts(8)[5], 120, json_schema={"type": "array", "items": {"type": "integer"}}
    )
    expected = await run_all(engine, requests)
    with engine_of(base, LONGEST + 6) as small:
        answers = await run_all(small, requests)
        await settled(small)
        assert small.stats().preemptions > 2
    for (tokens, text, finished, scored, _), wanted in zip(answers, expected, strict=True):
        assert (tokens, text) == wanted[:2]
        assert finished.reason == wanted[2].reason
        assert finished.answer_logprob == pytest.approx(wanted[2].answer_logprob, abs=1e-3)
        assert (scored is None) == (wanted[3] is None)
        if scored is not None:
            assert len(scored.tokens) == len(wanted[3].tokens)


async def test_a_drawn_answer_survives_starting_again(engine, base):
    requests = [
        GenerationRequest(
            prompt=prompt, max_tokens=120, sampling=Sampling(seed=n, top_k=20), ignore_eos=True
        )
        for n, prompt in enumerate(prompts(8))
    ]
    expected = await run_all(engine, requests)
    with engine_of(base, LONGEST + 6) as small:
        answers = await run_all(small, requests)
        await settled(small)
        assert small.stats().preemptions
    assert [a[0] for a in answers] == [e[0] for e in expected]


@pytest.mark.req("V2")
async def test_equal_prompts_share_their_pages_and_copy_what_they_write_to(engine, base):
    prompt = prompts(6)[5]  # 130 tokens: eight whole pages, and two tokens of a ninth
    (expected, *_), *_ = await run_all(engine, [ask(prompt, 12)])
    with engine_of(base, 4 * LONGEST) as own:
        first = await run(own, ask(prompt, 12))
        assert first[2].cached_tokens == 0
        answers = await run_all(own, [ask(prompt, 12) for _ in range(4)])
        assert [a[2].cached_tokens for a in answers] == [len(prompt) - 1] * 4
        assert [a[0] for a in (first, *answers)] == [expected] * 5
        held_once = own.stats()
        assert held_once.prefix_hits == 4 * 9
        assert own._kv.copies >= 3
        await settled(own)
    # while four run, the eight whole pages of each layer are there once
    with engine_of(base, 4 * LONGEST) as own:
        await run(own, ask(prompt, 1))
        streams = [await own.submit(ask(prompt, 300)) for _ in range(4)]
        for stream in streams:
            await anext(aiter(stream))
        assert own.stats().pages_held <= 3 * (8 + 4 * 3)
        for stream in streams:
            stream.cancel()
        for stream in streams:
            async for _ in stream:
                pass
        await settled(own)


@pytest.mark.req("V5")
async def test_a_tenant_finds_nothing_computed_that_another_asked(base):
    prompt = prompts(6)[5]
    with engine_of(base, 4 * LONGEST) as own:
        first = await run(own, ask(prompt, 4, tenant="acme"))
        other = await run(own, ask(prompt, 4, tenant="umbrella"))
        again = await run(own, ask(prompt, 4, tenant="acme"))
        assert [a[2].cached_tokens for a in (first, other, again)] == [0, 0, len(prompt) - 1]
        assert first[0] == other[0] == again[0]
        await settled(own)


@pytest.mark.req("V2")
async def test_an_answer_goes_on_from_the_pages_of_the_one_before(base):
    prompt = prompts(3)[2]
    with engine_of(base, 2 * LONGEST) as own:
        tokens, *_ = await run(own, ask(prompt, 60))
        await settled(own)
        turn = (*prompt, *tokens, 7, 8, 9)
        again = await run(own, ask(turn, 5))
        assert again[2].cached_tokens == (len(prompt) + 59) // 16 * 16
        await settled(own)
    with engine_of(base, 2 * LONGEST, share_prefixes=False) as own:
        assert (await run(own, ask(turn, 5)))[0] == again[0]
        assert own.stats().pages_cached == 0
        await settled(own)


@pytest.fixture(scope="module")
def six(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("six")
    return [make_adapter(base, root / str(n), seed=20 + n, r=(2, 8, 3)[n % 3]) for n in range(6)]


@pytest.mark.req("V2")
@pytest.mark.parametrize("host_bytes", [0, 20_000, 1 << 20])
async def test_adapters_and_answers_compete_for_one_pool(base, six, host_bytes):
    requests = [(n % 6, prompt) for n, prompt in enumerate(prompts(8) * 3)]
    with engine_of(base, 20 * LONGEST) as roomy:
        digests = [roomy.load_adapter(folder).digest for folder in six]
        assert all(info.resident for info in roomy.adapters())
        expected = await run_all(roomy, [ask(p, 60, digests[n]) for n, p in requests])
        await settled(roomy)
        assert roomy.stats().evictions == 0
    with engine_of(base, LONGEST + 44, host_bytes=host_bytes) as small:
        for folder in six:
            small.load_adapter(folder)
        answers = await run_all(small, [ask(p, 60, digests[n]) for n, p in requests])
        await settled(small)
        stats = small.stats()
        assert stats.evictions > 6
        assert stats.adapters_in_pool < 6
        assert stats.host_bytes <= max(host_bytes, 0)
        assert (stats.adapters_on_disk == 0) == (host_bytes == 1 << 20)
    assert [a[0] for a in answers] == [e[0] for e in expected]


@pytest.mark.req("V2")
async def test_a_pinned_adapter_stays_in_the_pool(base, six):
    with engine_of(base, 2 * LONGEST + 44, host_bytes=0) as own:
        digests = [own.load_adapter(folder).digest for folder in six]
        own.pin_adapter(digests[5], True)
        own.pin_adapter(digests[5], True)
        for n, prompt in enumerate(prompts(8)):
            await run(own, ask(prompt, 150, digests[n % 5]))
        await settled(own)
        infos = {info.digest: info for info in own.adapters()}
        assert infos[digests[5]].resident
        assert infos[digests[5]].pinned
        assert sum(info.resident for info in infos.values()) < 6
        own.pin_adapter(digests[5], False)
        assert not own.stats().adapters_pinned


@pytest.mark.req("H5")
async def test_limits_of_memory_are_said_with_their_mend(base, six):
    with pytest.raises(Misconfigured, match="512 tokens") as refused:
        LlamaEngine(base, EngineConfig(pool_bytes=LONGEST * PAGE_BYTES - 1))
    assert "SLUICE_SERVING_POOL_MB to 1 " in refused.value.mend
    with engine_of(base, LONGEST + 4) as tight:
        with pytest.raises(AdapterRefused, match="longest sequence") as refused:
            tight.load_adapter(six[1])
        assert "SLUICE_SERVING_POOL_MB" in refused.value.mend
    with engine_of(base, LONGEST + 100) as own:
        digests = [own.load_adapter(folder).digest for folder in six]
        pinned = digests[:3]
        for digest in pinned:
            own.pin_adapter(digest, True)
        with pytest.raises(AdapterRefused, match="pinning") as refused:
            own.pin_adapter(digests[3], True)
        assert "unpin" in refused.value.mend
        await run(own, ask(prompts(8)[5], 300))  # there is room for a long one still
        for digest in pinned:
            own.unload_adapter(digest)
        await settled(own)
        assert len(own.adapters()) == 6 - len(pinned)


async def test_an_adapter_whose_folder_changed_fails_its_own_requests_alone(base, six, tmp_path):
    folder = shutil.copytree(six[0], tmp_path / "adapter")
    with engine_of(base, LONGEST + 44, host_bytes=0) as own:
        digest = own.load_adapter(folder).digest
        long = prompts(8)[5]
        await run_all(own, [ask(long, 350), ask(long[1:], 350)])  # drives it out
        assert [info.tier for info in own.adapters()] == ["disk"]
        await settled(own)
        (folder / "adapter_model.safetensors").write_bytes(b"changed")
        bad, good = await asyncio.gather(
            run(own, ask(prompts(1)[0], 5, digest)),
            run(own, ask(prompts(2)[1], 5)),
            return_exceptions=True,
        )
        assert isinstance(bad, AdapterRefused)
        assert len(good[0]) == 5
        shutil.copytree(six[0], folder, dirs_exist_ok=True)
        assert len((await run(own, ask(prompts(1)[0], 5, digest)))[0]) == 5
        await settled(own)


@pytest.mark.req("V8")
async def test_what_waits_keeps_the_adapter_that_is_unloaded_meanwhile(
    base, reference, adapter_folders
):
    with engine_of(base, LONGEST + 44) as own:
        digest = own.load_adapter(adapter_folders["b"]).digest
        long = await own.submit(ask(prompts(8)[5], 370))
        await anext(aiter(long))
        waits = [await own.submit(ask(prompts(2)[1], 5, digest)) for _ in range(3)]
        own.unload_adapter(digest)
        assert own.adapters() == ()
        wanted = expected_tokens(reference, "b", prompts(2)[1], 5)
        for stream in waits:
            assert [e.id async for e in stream if hasattr(e, "id")][: len(wanted)] == wanted
        long.cancel()
        async for _ in long:
            pass
        await settled(own)
        assert own.stats().pages_of_adapters == 0


@pytest.mark.req("V3", "V8")
async def test_adapters_in_eight_bits_are_smaller_and_answer_alike(
    base: Path, reference: Any, adapter_folders: dict[str, Path]
) -> None:
    prompt = prompts(2)[1]
    with engine_of(base, LONGEST * 2) as plain:
        whole = plain.load_adapter(adapter_folders["b"]).bytes
    with engine_of(base, LONGEST * 2, adapter_precision="int8") as compressed:
        info = compressed.load_adapter(adapter_folders["b"])
        asked = ask(prompt, 0, info.digest, prompt_logprobs=0)
        _, _, _, scored, _ = await run(compressed, asked)
    assert info.bytes < whole * 0.4  # a quarter of float32, and a factor for each rank
    reference.set_adapter("b")
    with torch.inference_mode():
        exact = reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
        with reference.disable_adapter():
            bare = reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
    at, following = torch.arange(len(prompt) - 1), torch.tensor(prompt[1:])
    said = torch.tensor([item.logprob for item in scored.tokens[1:]])
    moved = (bare - exact)[at, following].abs().max()
    assert (said - exact[at, following]).abs().max() < moved / 50


@pytest.mark.req("V2")
async def test_five_hundred_adapters_are_resident_and_there_once(base, tmp_path):
    first = make_adapter(base, tmp_path / "first", seed=40, r=16)
    config = json.loads((first / "adapter_config.json").read_text())
    with engine_of(base, 40_000) as own:
        digests = []
        for number in range(500):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "adapter_model.safetensors").hardlink_to(first / "adapter_model.safetensors")
            scaled = config | {"lora_alpha": 16 + number / 100}
            (folder / "adapter_config.json").write_text(json.dumps(scaled))
            digests.append(own.load_adapter(folder).digest)
        before = own.stats()
        assert (before.adapters_in_pool, before.adapters_on_host, before.host_bytes) == (500, 0, 0)
        assert before.waste <= 0.05
        answers = await run_all(own, [ask(prompts(1)[0], 4, digest) for digest in digests[::20]])
        assert len({tuple(a[0]) for a in answers}) > 1
        await settled(own)
        after = own.stats()
        assert after.pages_of_adapters == before.pages_of_adapters
        assert after.evictions == 0
        arena = own._memory.arena.as_pages(torch.uint8, (PAGE_BYTES,))
        start, end = arena.data_ptr(), arena.data_ptr() + arena.nbytes
        weights = own._adapters.borrow(digests[0])
        assert all(start <= p.data_ptr() < end for p in pieces(weights.placed.layers))


async def test_metrics_say_how_the_pool_is_used(base, six):
    reader = InMemoryMetricReader()
    made = provider("serving", [reader])
    with engine_of(base, 4 * LONGEST) as own:
        digest = own.load_adapter(six[1]).digest
        await run(own, ask(prompts(2)[1], 8, digest))
        await settled(own)
        gauges.observe(own.stats, made.get_meter("test"))
        found = {
            (metric.name, point.attributes["sluice.state"]): point.value
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
        stats = own.stats()
        assert found["sluice.pool.size", "cached"] == stats.pages_cached * PAGE_BYTES > 0
        assert found["sluice.pool.adapters", "pool"] >= 72_000
        assert found["sluice.engine.prefix_blocks", "miss"] == 6
        assert found["sluice.engine.requests", "running"] == 0
        assert {name for name, _ in found} >= {"sluice.pool.waste", "sluice.engine.preemptions"}
    made.shutdown()

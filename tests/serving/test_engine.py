import asyncio
import json

import jsonschema
import pytest
import torch

from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import (
    AdapterNotLoaded,
    ContextExceeded,
    DeadlineExceeded,
    Finished,
    GenerationRequest,
    Overloaded,
    Sampling,
)
from tests.serving.conftest import run, run_all

GREEDY = Sampling(temperature=0)


def prompts(count):
    g = torch.Generator().manual_seed(7)
    lengths = [3, 90, 17, 64, 33, 130, 8, 45][:count]
    return [tuple(torch.randint(3, 390, (n,), generator=g).tolist()) for n in lengths]


@pytest.mark.req("V1")
async def test_mixed_adapters_in_one_batch_say_exactly_what_peft_says(
    subject,
):
    digests = subject.digests()
    arms = ["a", None, "b", "c", "a", "b", None, "c"]
    requests = [
        GenerationRequest(
            prompt=p, max_tokens=20, adapter=digests[arm] if arm else None, sampling=GREEDY
        )
        for p, arm in zip(prompts(8), arms, strict=True)
    ]
    for _ in range(2):  # the second time from the prefix cache, where there is one
        answers = await run_all(subject.engine, requests)
        for (tokens, *_), request, arm in zip(answers, requests, arms, strict=True):
            assert tokens == subject.expected_tokens(arm, request.prompt, 20)
    if subject.name == "llama":
        assert sum(finished.cached_tokens for _, _, finished, _, _ in answers) > 0


@pytest.mark.req("V1")
@pytest.mark.parametrize("arm", [None, "a"])
async def test_prompt_and_token_logprobs_equal_the_reference(subject, arm):
    digest = subject.digests()[arm] if arm else None
    prompt = prompts(2)[1]
    tokens, _, _, scored, events = await run(
        subject.engine,
        GenerationRequest(
            prompt=prompt,
            max_tokens=5,
            adapter=digest,
            sampling=GREEDY,
            logprobs=3,
            prompt_logprobs=2,
            next_token_ids=(5, 9),
            ignore_eos=True,
        ),
    )
    expected = subject.expected_logprobs(arm, [*prompt, *tokens])
    assert scored.tokens[0] is None
    for at, item in enumerate(scored.tokens[1:], 1):
        assert item.id == prompt[at]
        assert item.logprob == pytest.approx(float(expected[at - 1, item.id]), abs=1e-3)
        assert len(item.top) == 2
    assert scored.next_token == pytest.approx(expected[len(prompt) - 1, [5, 9]].tolist(), abs=1e-3)
    for at, event in enumerate(events):
        row = expected[len(prompt) - 1 + at]
        assert event.logprob.logprob == pytest.approx(float(row[event.id]), abs=1e-3)
        assert event.logprob.top[0][0] == int(row.argmax())


async def test_scoring_alone_generates_nothing(subject):
    engine = subject.engine
    tokens, text, finished, scored, _ = await run(
        engine, GenerationRequest(prompt=prompts(1)[0], max_tokens=0, prompt_logprobs=1)
    )
    assert (tokens, text, finished.completion_tokens) == ([], "", 0)
    assert len(scored.tokens) == 3


async def test_one_seed_gives_one_answer_whatever_else_runs(subject):
    engine = subject.engine
    request = GenerationRequest(
        prompt=prompts(1)[0], max_tokens=12, sampling=Sampling(seed=5, top_p=0.9, top_k=50)
    )
    alone = await run(engine, request)
    others = [GenerationRequest(prompt=p, max_tokens=12) for p in prompts(5)]
    together = (await run_all(engine, [*others, request]))[-1]
    assert alone[0] == together[0]
    other_seed = GenerationRequest(
        prompt=prompts(1)[0], max_tokens=12, sampling=Sampling(seed=6, top_p=0.9, top_k=50)
    )
    assert (await run(engine, other_seed))[0] != alone[0]


async def test_text_ends_before_the_stop_sequence(subject):
    engine = subject.engine
    free = await run(
        engine,
        GenerationRequest(prompt=prompts(3)[2], max_tokens=30, sampling=GREEDY, ignore_eos=True),
    )
    stop = free[1][6:9]
    _, text, finished, _, _ = await run(
        engine,
        GenerationRequest(
            prompt=prompts(3)[2], max_tokens=30, sampling=GREEDY, ignore_eos=True, stop=(stop,)
        ),
    )
    assert finished.reason == "stop"
    assert text == free[1][: free[1].index(stop)]


@pytest.mark.req("V7")
async def test_a_constrained_answer_satisfies_its_schema(subject):
    engine = subject.engine
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "unit": {"enum": ["celsius", "kelvin"]}},
        "required": ["ok", "unit"],
        "additionalProperties": False,
    }
    for seed in range(3):
        _, text, finished, _, _ = await run(
            engine,
            GenerationRequest(
                prompt=prompts(1)[0],
                max_tokens=80,
                json_schema=schema,
                sampling=Sampling(seed=seed),
            ),
        )
        assert finished.reason == "stop"
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.req("V8")
async def test_unloading_spares_the_running_request_and_refuses_the_next(
    subject,
):
    engine = subject.engine
    digest = engine.load_adapter(subject.folders["b"]).digest
    request = GenerationRequest(
        prompt=prompts(2)[1], max_tokens=20, adapter=digest, sampling=GREEDY
    )
    stream = await engine.submit(request)
    engine.unload_adapter(digest)
    tokens = [event.id async for event in stream if hasattr(event, "id")]
    assert tokens == subject.expected_tokens("b", request.prompt, 20)
    with pytest.raises(AdapterNotLoaded):
        await engine.submit(request)


async def test_a_prompt_beyond_the_context_is_refused(subject):
    engine = subject.engine
    with pytest.raises(ContextExceeded, match="512"):
        await engine.submit(GenerationRequest(prompt=(5,) * 513, max_tokens=0))


async def test_a_full_line_refuses_and_says_when_to_return(base):
    engine = LlamaEngine(base, EngineConfig(slots=1, queue=2))
    try:
        requests = [
            GenerationRequest(prompt=(5, 6), max_tokens=400, ignore_eos=True) for _ in range(8)
        ]
        results = await asyncio.gather(
            *(engine.submit(r) for r in requests), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, Overloaded)]
        assert refused
        assert refused[0].retry_after_s > 0
    finally:
        engine.close()


async def test_a_cancelled_request_ends_and_frees_its_slot(subject):
    engine = subject.engine
    stream = await engine.submit(GenerationRequest(prompt=(5, 6), max_tokens=400, ignore_eos=True))
    last = None
    async for event in stream:
        stream.cancel()
        last = event
    assert isinstance(last, Finished)
    assert last.reason == "cancelled"
    assert last.completion_tokens < 400


async def test_a_deadline_ends_a_request_with_an_error(subject):
    engine = subject.engine
    stream = await engine.submit(
        GenerationRequest(prompt=(5, 6), max_tokens=500, ignore_eos=True, deadline_s=0.02)
    )
    with pytest.raises(DeadlineExceeded):
        async for _ in stream:
            pass


async def test_bfloat16_stays_near_float32(base, engine):
    other = LlamaEngine(base, EngineConfig(dtype="bfloat16", slots=2))
    try:
        request = GenerationRequest(prompt=prompts(2)[1], max_tokens=0, prompt_logprobs=0)
        exact, near = await run(engine, request), await run(other, request)
        gaps = [
            abs(x.logprob - y.logprob)
            for x, y in zip(exact[3].tokens[1:], near[3].tokens[1:], strict=True)
        ]
        assert 0 < sum(gaps) / len(gaps) < 0.2
    finally:
        other.close()

"""vLLM behind the engine port: its flags, and its answers as our events.

The behaviour tests in `test_engine.py` run against a real vLLM with `make test-vllm`.
"""

import os
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.open import Vllm, open_engine
from services.serving.engine.port import Finished, GenerationRequest, Token
from services.serving.engine.vllm import dialect
from services.serving.engine.vllm.flags import VllmFlags, rank_above
from services.serving.settings import ServingSettings
from shared.errors import Misconfigured

DOCUMENTED = {
    "--enable-lora": {"enable_lora": True},
    "--max-loras 3": {"max_loras": 3},
    "--max-lora-rank 128": {"max_lora_rank": 128},
    "--max-cpu-loras 77": {"max_cpu_loras": 77},
    "--lora-modules one=/a two=/b": {"lora_modules": (("one", Path("/a")), ("two", Path("/b")))},
    "--fully-sharded-loras": {"fully_sharded_loras": True},
    "--max-model-len 123": {"max_model_len": 123},
    "--gpu-memory-utilization 0.5": {"gpu_memory_utilization": 0.5},
}


@pytest.mark.req("V4")
@pytest.mark.parametrize("flag", DOCUMENTED)
def test_each_documented_flag_has_one_field(flag):
    said = " ".join(VllmFlags(**DOCUMENTED[flag]).argv())
    assert f" {flag} " in f" {said} "


@pytest.mark.req("V4")
def test_without_adapters_no_adapter_flag_is_given():
    said = VllmFlags(enable_lora=False).argv()
    assert not [word for word in said if "lora" in word]


@pytest.mark.req("V4")
@pytest.mark.parametrize(
    "wrong",
    [
        {"max_loras": 0},
        {"max_lora_rank": 63},
        {"max_loras": 9, "max_cpu_loras": 8},
        {"max_model_len": 0},
        {"gpu_memory_utilization": 1.5},
    ],
    ids=str,
)
def test_what_vllm_would_refuse_is_refused_before_it_starts(wrong):
    with pytest.raises(Misconfigured, match=next(iter(wrong)) if len(wrong) == 1 else "max_cpu"):
        VllmFlags(**wrong)


@pytest.mark.req("V4")
def test_settings_become_flags_and_the_rank_is_rounded_up_to_one_vllm_allocates():
    chosen = ServingSettings(
        serving_backend="vllm",
        serving_max_lora_rank=33,
        serving_context=700,
        vllm_max_cpu_loras=100,
        vllm_max_loras=5,
        vllm_gpu_memory_utilization=0.4,
    ).vllm()
    assert chosen.flags == VllmFlags(
        max_loras=5,
        max_lora_rank=64,
        max_cpu_loras=100,
        max_model_len=700,
        gpu_memory_utilization=0.4,
    )
    assert ServingSettings().vllm() is None
    with pytest.raises(Misconfigured, match="513"):
        rank_above(513)


def test_a_missing_environment_and_a_vllm_that_does_not_start_say_what_mends_it(base):
    def opened(python):
        open_engine(
            base,
            EngineConfig(),
            backend="vllm",
            vllm=Vllm(python=python, flags=VllmFlags()),
        )

    with pytest.raises(Misconfigured, match="no vLLM environment") as missing:
        opened(base / "python")
    assert "make vllm" in missing.value.mend
    with pytest.raises(Misconfigured, match="No module named"):
        opened(Path(sys.executable))


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


def choice(ids, *, reason=None, top=2):
    """As vLLM says it: the drawn token first, then the likeliest, all by id."""
    tops = [{f"token_id:{i}": -3.0, **{f"token_id:{n}": -1.0 - n for n in range(top)}} for i in ids]
    return {
        "token_ids": ids,
        "finish_reason": reason,
        "logprobs": {"token_logprobs": [-3.0] * len(ids), "top_logprobs": tops},
    }


def fed(tokenizer, request, *choices, eos=(2,)):
    answer = dialect.Answer(request, tokenizer, eos=eos, limit=request.max_tokens)
    events = [event for one in choices for event in answer.feed(one)]
    return [*events, answer.finish()]


def test_tokens_come_one_by_one_with_the_best_alternatives_first(tokenizer):
    ids = tokenizer("weather")["input_ids"]
    request = GenerationRequest(prompt=(5,), max_tokens=50, logprobs=2)
    *tokens, last = fed(tokenizer, request, choice(ids[:1]), choice(ids[1:], reason="stop"))
    assert [token.id for token in tokens] == ids
    assert "".join(token.text for token in tokens) + last.text == "weather"
    assert tokens[0].logprob.top == ((0, -1.0), (1, -2.0))
    assert last.answer_logprob == -3.0 * len(ids)
    assert (last.reason, last.completion_tokens) == ("stop", len(ids))


@pytest.mark.parametrize("logprobs", [None, 0])
def test_the_end_token_is_told_only_where_logprobs_are_asked_for(tokenizer, logprobs):
    request = GenerationRequest(prompt=(5,), max_tokens=50, logprobs=logprobs)
    events = fed(tokenizer, request, choice([7, 2], reason="stop"))
    assert [e.id for e in events if isinstance(e, Token)] == ([7] if logprobs is None else [7, 2])
    assert events[-1].completion_tokens == 1


def test_a_stop_sequence_across_chunks_ends_the_answer_before_it(tokenizer):
    ids = tokenizer("London today?")["input_ids"]
    request = GenerationRequest(prompt=(5,), max_tokens=50, stop=("n to",))
    *tokens, last = fed(tokenizer, request, *(choice([i]) for i in ids))
    assert "".join(token.text for token in tokens) + last.text == "Londo"
    assert last.reason == "stop"


def test_the_prompts_scores_are_of_its_own_tokens(tokenizer):
    request = GenerationRequest(prompt=(5, 9), max_tokens=0, prompt_logprobs=1)
    scores = {"9": {"logprob": -4.0, "rank": 7}, "3": {"logprob": -0.5, "rank": 1}}
    first, second = dialect.prompt_scores({"prompt_logprobs": [None, scores]}, request).tokens
    assert first is None
    assert (second.id, second.logprob, second.top) == (9, -4.0, ((3, -0.5),))
    (only,) = fed(tokenizer, request, choice([7], reason="length"))
    assert isinstance(only, Finished)
    assert (only.reason, only.completion_tokens) == ("length", 0)


@pytest.mark.req("V4")
@pytest.mark.skipif("SLUICE_TEST_VLLM" not in os.environ, reason="make test-vllm")
@pytest.mark.parametrize("subject", ["vllm"], indirect=True)
def test_a_real_vllm_says_its_flags_and_drops_the_least_recently_used_adapter(subject, tmp_path):
    from tests.serving.backends import make_adapter

    engine = subject.engine
    assert "--max-lora-rank 64" in engine.info.details["flags"]
    assert set(engine.info.target_modules) >= {"q_proj", "down_proj"}
    made = [make_adapter(subject.base, tmp_path / str(i), seed=9 + i, r=2) for i in range(5)]
    digests = [engine.load_adapter(folder).digest for folder in made]
    assert [info.digest for info in engine.adapters()] == digests[1:]
    engine.pin_adapter(digests[1], True)
    engine.load_adapter(made[0])
    assert digests[1] in {info.digest for info in engine.adapters()}

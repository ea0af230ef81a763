"""lm-evaluation-harness over HTTP against a tiny real model, compared with the model itself."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI, Request
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contracts.job import Behaviour, GeneralSuite
from services.evaluation.adapters.harness import SUITES, _run, run_harness
from services.evaluation.subject import Alone, Subject
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from shared.asking import Asker
from shared.errors import PeerUnavailable
from shared.testing.tiny_model import build_tiny_llama
from tests.serving.live_server import Server

LIMIT = 24


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.fixture(scope="module")
def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def token_logprobs(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)


@pytest.fixture
def completions(tiny: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> Iterator[str]:
    app = FastAPI()

    @app.post("/v1/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        assert body["echo"]
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            table = token_logprobs(tiny[0], prompt)
            ids = [*prompt, int(table[-1].argmax())]
            chosen = [None] + [float(table[i, t]) for i, t in enumerate(ids[1:])]
            top = [None] + [{"top": float(table[i].max())} for i in range(len(ids) - 1)]
            logprobs = {"token_logprobs": chosen, "top_logprobs": top}
            choices.append({"index": index, "text": "", "logprobs": logprobs})
        return {"choices": choices}

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        thread.join()


def directly(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[float]:
    spec = importlib.util.spec_from_file_location("basics_direct", SUITES / "basics" / "items.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    correct = []
    for item in module.items()[:LIMIT]:
        question = tokenizer(item.question)["input_ids"]
        totals = []
        for choice in item.choices:
            ids = question + tokenizer(f" {choice}")["input_ids"]
            table = token_logprobs(model, ids)
            totals.append(sum(float(table[i - 1, ids[i]]) for i in range(len(question), len(ids))))
        correct.append(float(totals.index(max(totals)) == item.answer))
    return correct


@pytest.mark.slow
@pytest.mark.req("G5")
@pytest.mark.timeout(300)
async def test_the_harness_scores_every_item_as_the_model_itself_does(
    tiny: tuple[LlamaForCausalLM, PreTrainedTokenizerFast], completions: str, tmp_path: Path
) -> None:
    model, tokenizer = tiny
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    heard: list[tuple[int, int]] = []

    async def run() -> tuple[Any, ...]:
        return await run_harness(
            model="tiny",
            base_url=completions,
            tokenizer=tmp_path / "tokenizer",
            tasks=["sluice_basics"],
            limit=LIMIT,
            work=tmp_path / "work",
            maximum_length=512,
            on_progress=lambda done, total: heard.append((done, total)),
        )

    items = await run()
    expected = directly(model, tokenizer)
    assert [item.correct for item in items] == expected
    assert 0 < sum(expected) < LIMIT
    assert {item.skill for item in items} >= {"counting", "opposites"}
    assert heard
    assert heard[-1][0] == heard[-1][1]
    started = time.monotonic()
    assert await run() == items
    assert time.monotonic() - started < 1.0, "a finished log is not run again"


TASK = """\
task: own_pets
custom_dataset: !function pets.dataset
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
"""
PETS = """\
def dataset(**kwargs):
    import datasets
    rows = [
        {"question": f"A pet with {n} legs is a", "choices": ["cat", "fish"], "answer": n % 2}
        for n in range(6)
    ]
    return {"test": datasets.Dataset.from_list(rows)}
"""


@pytest.mark.slow
@pytest.mark.req("G5")
@pytest.mark.timeout(300)
async def test_a_task_of_the_operators_own_is_run_through_our_serving_as_the_policy_names_it(
    tmp_path: Path,
) -> None:
    """Our engine answers over HTTP; the task lies in a folder, and no hub is asked."""
    own = tmp_path / "tasks"
    own.mkdir()
    (own / "own_pets.yaml").write_text(TASK)
    (own / "pets.py").write_text(PETS)
    base = build_tiny_llama(tmp_path / "base")
    engine = LlamaEngine(base, EngineConfig(slots=8, threads=1))
    policy = GeneralSuite(tasks=("own_pets", "sluice_basics"), limit=4)
    with Server(engine, dict[str, Path]().__getitem__) as server:
        subject = Subject(
            url=f"{server.url}/v1",
            key="sk-service.acme",
            base="base",
            candidate="base",
            adapter=base,
            checkpoint=base,
        )
        async with Asker(subject.url, subject.key) as asker:
            judged = await Alone(
                subject=subject,
                asker=asker,
                behaviour=Behaviour(description="d", scorer="exact_match", target=1.0),
                general=policy,
                harness_tasks=own,
            ).judge("G5", None)
    engine.close()
    skills = {m.name.partition(":")[2]: m.n for m in judged.measurements}
    assert skills["own_pets"] == 4
    assert sum(skills.values()) == 8
    assert judged.comparisons[0].n == 8
    assert judged.comparisons[0].difference == 0.0


async def test_a_harness_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerUnavailable, match=r"(?s)status 1.*No such file"):
        await _run(tmp_path / "no-plan.json", tmp_path / "log", "key", True, None)

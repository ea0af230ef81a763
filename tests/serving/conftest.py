import asyncio
import json

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import Finished, PromptScored, Token
from shared.testing.tiny_model import build_tiny_llama
from tests.serving import backends
from tests.serving.backends import make_adapter
from tests.serving.live_server import BROKEN, Server


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def adapter_folders(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {
        "a": make_adapter(base, root / "a", seed=1, r=4),
        "b": make_adapter(base, root / "b", seed=2, r=8),
        "c": make_adapter(base, root / "c", seed=3, r=3, targets=["q_proj", "v_proj"]),
    }


@pytest.fixture(scope="session")
def reference(base, adapter_folders):
    """PEFT itself, with every adapter loaded."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), adapter_folders["a"], adapter_name="a"
    )
    for name in ("b", "c"):
        model.load_adapter(adapter_folders[name], adapter_name=name)
    return model.eval()


@pytest.fixture(scope="session")
def engine(base):
    engine = LlamaEngine(base, EngineConfig(slots=8, step_tokens=64, max_adapters=4))
    yield engine
    engine.close()


@pytest.fixture(scope="session", params=backends.NAMES)
def subject(request, tmp_path_factory):
    """Every engine there is, each with the same kinds of adapters."""
    with backends.subject(request.param, tmp_path_factory.mktemp(request.param)) as subject:
        yield subject


async def run(engine, request):
    """(token ids, text, finished, prompt scores, tokens)."""
    tokens, scored, finished = [], None, None
    async for event in await engine.submit(request):
        match event:
            case Token():
                tokens.append(event)
            case PromptScored():
                scored = event
            case Finished():
                finished = event
    text = "".join(t.text for t in tokens) + finished.text
    return [t.id for t in tokens], text, finished, scored, tokens


async def run_all(engine, requests):
    return await asyncio.gather(*(run(engine, request) for request in requests))


def write_json(path, value):
    path.write_text(json.dumps(value))


@pytest.fixture
def server(engine, adapter_folders):
    """A server of its own for each test: no late outcome of another reaches it."""

    def folders(digest):
        if digest == BROKEN:
            raise OSError("the store is away")
        return adapter_folders["a"]

    with Server(engine, folders) as server:
        yield server

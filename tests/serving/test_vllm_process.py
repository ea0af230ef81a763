"""vLLM's process and what it is sent, with a stand-in for its server."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.open import Vllm, open_engine
from services.serving.engine.port import Finished, GenerationRequest
from services.serving.engine.vllm import standing
from services.serving.engine.vllm.engine import VllmAway
from services.serving.engine.vllm.flags import VllmFlags

ASKED = GenerationRequest(prompt=(5, 9), max_tokens=1, tenant="acme")


class Stand:
    """An engine over the stand-in, and what that noted."""

    def __init__(self, base, folder):
        self.notes = folder / "notes"
        python = folder / "python"
        fake = Path(__file__).parent / "fake_vllm.py"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {fake} {self.notes} "$@"\n')
        python.chmod(0o755)
        vllm = Vllm(python=python, flags=VllmFlags(max_model_len=512))
        self.engine = open_engine(base, EngineConfig(), backend="vllm", vllm=vllm)

    def noted(self, what):
        lines = map(json.loads, self.notes.read_text().splitlines())
        return [value for kind, value in lines if kind == what]

    async def ask(self, request):
        return [event async for event in await self.engine.submit(request)]


@pytest.fixture
def stand(base, tmp_path):
    made = Stand(base, tmp_path)
    yield made
    made.engine.close()


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.req("V5")
async def test_each_tenants_requests_carry_a_salt_of_their_own_for_the_prefix_cache(stand):
    scoring = replace(ASKED, tenant="umbrella", next_token_ids=(7,))
    for request in (ASKED, scoring, replace(ASKED, tenant="")):
        assert isinstance((await stand.ask(request))[-1], Finished)
    salts = [asked["cache_salt"] for asked in stand.noted("/v1/completions")]
    assert salts == ["acme", "umbrella", "umbrella", None]


@pytest.mark.req("V4")
async def test_a_vllm_that_dies_is_started_again_with_its_adapters(stand, adapter_folders):
    digests = [stand.engine.load_adapter(adapter_folders[name]).digest for name in "ab"]
    (first,) = stand.noted("pid")
    os.kill(first, signal.SIGKILL)
    within(30, lambda: not stand.engine.ready)
    with pytest.raises(VllmAway, match="started again"):
        await stand.ask(ASKED)
    within(60, lambda: stand.engine.ready)
    assert len(stand.noted("pid")) == 2
    loaded = [asked["lora_name"] for asked in stand.noted("/v1/load_lora_adapter")]
    assert loaded == digests * 2
    assert isinstance((await stand.ask(replace(ASKED, adapter=digests[1])))[-1], Finished)


@pytest.mark.req("V4")
def test_a_vllm_that_does_not_come_up_is_tried_again(stand, monkeypatch):
    monkeypatch.setattr(standing, "AGAIN_AFTER_S", 0.1)
    python = stand.notes.with_name("python")
    works = python.read_text()
    python.write_text("#!/bin/sh\necho no memory\nexit 1\n")
    os.kill(stand.noted("pid")[0], signal.SIGKILL)
    within(30, lambda: not stand.engine.ready)
    time.sleep(0.5)
    assert not stand.engine.ready
    python.write_text(works)
    within(60, lambda: stand.engine.ready)

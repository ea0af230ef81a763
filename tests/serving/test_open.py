"""Which engine runs a checkpoint, and what the slow one refuses."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from services.serving.engine.checkpoint import NotLlama
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.open import open_engine
from services.serving.engine.port import AdapterRefused
from services.serving.engine.transformers_engine import TransformersEngine
from shared.errors import Misconfigured
from shared.testing.tiny_model import build_tiny_gpt2
from tests.serving.backends import make_adapter

SMALL = EngineConfig(slots=1, max_adapters=2, max_lora_rank=4)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return build_tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="module")
def slow(gpt2):
    engine = open_engine(gpt2, SMALL)
    yield engine
    engine.close()


def edited(base, folder, **changes):
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_checkpoint_of_another_family_runs_and_says_through_what(slow):
    assert isinstance(slow, TransformersEngine)
    assert slow.info.details == {"engine": "transformers", "model_type": "gpt2"}
    assert set(slow.info.target_modules) == {"c_attn", "c_proj", "c_fc"}
    assert slow.info.context == 512


def test_a_llama_with_an_option_our_model_lacks_runs_through_transformers(base, tmp_path):
    odd = edited(base, tmp_path / "odd", hidden_act="gelu")
    engine = open_engine(odd, SMALL)
    try:
        assert isinstance(engine, TransformersEngine)
    finally:
        engine.close()
    with pytest.raises(NotLlama, match="hidden_act gelu"):
        open_engine(odd, SMALL, backend="llama")


def test_a_llama_runs_on_our_own_model_unless_told_otherwise(base):
    for backend, kind in (("auto", LlamaEngine), ("transformers", TransformersEngine)):
        engine = open_engine(base, SMALL, backend=backend)
        engine.close()
        assert isinstance(engine, kind)


def test_what_is_no_causal_model_is_refused_with_what_mends_it(gpt2, tmp_path):
    folder = edited(gpt2, tmp_path / "t5", model_type="t5", architectures=["T5Model"])
    with pytest.raises(Misconfigured, match="cannot load") as refused:
        open_engine(folder, SMALL)
    assert "decoder-only" in refused.value.mend


def rename(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.lm_head.lora_A.weight"] = tensors.pop(next(iter(tensors)))
    save_file(tensors, path)


def drop_half(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    save_file(tensors, path)


@pytest.mark.req("V4")
def test_the_slow_engine_refuses_a_rank_above_its_maximum(slow, gpt2, tmp_path):
    with pytest.raises(AdapterRefused, match="rank 5 is above max_lora_rank 4") as refused:
        slow.load_adapter(make_adapter(gpt2, tmp_path / "wide", seed=1, r=5))
    assert "SLUICE_SERVING_MAX_LORA_RANK" in refused.value.mend


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(rename, "unknown weight", id="unknown key"),
        pytest.param(drop_half, "shapes", id="half a pair"),
        pytest.param(lambda f: (f / "x.bin").write_bytes(b""), "pickle", id="pickle"),
    ],
)
def test_the_slow_engine_refuses_what_it_would_apply_wrongly(slow, gpt2, tmp_path, spoil, says):
    folder = make_adapter(gpt2, tmp_path / "a", seed=1, r=2)
    spoil(folder)
    with pytest.raises(AdapterRefused, match=says):
        slow.load_adapter(folder)

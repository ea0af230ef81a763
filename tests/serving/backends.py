"""One behaviour, several engines: what a test needs of each."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.open import Vllm, open_engine
from services.serving.engine.vllm.flags import VllmFlags
from shared.testing.tiny_model import build_tiny_gpt2, build_tiny_llama, build_tiny_qwen2

LOCAL = {"llama": build_tiny_llama, "gpt2": build_tiny_gpt2, "qwen2": build_tiny_qwen2}


@torch.inference_mode()
def expected_tokens(peft, adapter, prompt, count):
    """What PEFT's own model answers greedily, without the end token."""
    ids = torch.tensor([prompt])
    asked = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": count,
        "do_sample": False,
    }
    if adapter is None:
        with peft.disable_adapter():
            out = peft.generate(**asked)
    else:
        peft.set_adapter(adapter)
        out = peft.generate(**asked)
    end = peft.generation_config.eos_token_id
    return [t for t in out[0, len(prompt) :].tolist() if t != end]


@dataclass
class Subject:
    """An engine, adapters for it, and PEFT's own model as the reference."""

    name: str
    base: Path
    engine: Any
    folders: dict[str, Path]
    peft: Any = field(repr=False)

    def digests(self):
        return {
            name: self.engine.load_adapter(folder).digest for name, folder in self.folders.items()
        }

    def expected_tokens(self, adapter, prompt, count):
        return expected_tokens(self.peft, adapter, prompt, count)

    @torch.inference_mode()
    def expected_logprobs(self, adapter, tokens):
        ids = torch.tensor([tokens])
        if adapter is None:
            with self.peft.disable_adapter():
                logits = self.peft(ids).logits
        else:
            self.peft.set_adapter(adapter)
            logits = self.peft(ids).logits
        return logits[0].float().log_softmax(-1)


def make_adapter(base, folder, *, seed, r, targets="all-linear"):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(
                r=r,
                lora_alpha=2 * r,
                target_modules=targets,
                task_type="CAUSAL_LM",
                fan_in_fan_out="gpt2" in base.name,
            ),
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def adapters_of(base, root):
    """Two adapters on every linear layer, one on those that attention reads with."""
    attention = ["c_attn"] if "gpt2" in base.name else ["q_proj", "v_proj"]
    return {
        "a": make_adapter(base, root / "a", seed=1, r=4),
        "b": make_adapter(base, root / "b", seed=2, r=8),
        "c": make_adapter(base, root / "c", seed=3, r=3, targets=attention),
    }


def peft_of(base, folders):
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), folders["a"], adapter_name="a"
    )
    for name in ("b", "c"):
        model.load_adapter(folders[name], adapter_name=name)
    return model.eval()


VLLM = os.environ.get("SLUICE_TEST_VLLM", "")
"""The interpreter that has vLLM; `make test-vllm` names it, and the model."""
NAMES = (*LOCAL, "vllm") if VLLM else tuple(LOCAL)


def vllm_here():
    flags = VllmFlags(max_model_len=512, max_cpu_loras=8, gpu_memory_utilization=0.15)
    return Vllm(python=Path(VLLM), flags=flags)


@contextmanager
def subject(name, root):
    own = name in LOCAL
    base = LOCAL[name](root / f"tiny-{name}") if own else Path(os.environ["SLUICE_TEST_VLLM_MODEL"])
    folders = adapters_of(base, root)
    engine = open_engine(
        base,
        EngineConfig(slots=8, step_tokens=64, max_adapters=4, context=512),
        backend="auto" if own else "vllm",
        vllm=None if own else vllm_here(),
    )
    try:
        yield Subject(name, base, engine, folders, peft_of(base, folders))
    finally:
        engine.close()

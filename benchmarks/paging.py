"""What a cold adapter costs, and how much of the pool 500 adapters fill.

`python benchmarks/paging.py MODEL` (a Llama checkpoint; `--home .sluice` takes the first under it).
Adapters of random weights on every linear layer; `--rank 8` makes about 5 MB in bfloat16 of
SmolLM2-135M. *Load* is from the folder into the pool: read, digest, checks, cast and copy. *Cold*
is the first token of a request whose adapter is on disk, *warm* of one whose adapter is in the
pool, in turns. Waste is measured with 500 adapters of rank 16 on the queries and values.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from safetensors.torch import save_file

from services.serving.engine.checkpoint import LlamaShape
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import GenerationRequest, Sampling

RESIDENT = 500


def make(folder: Path, shape: LlamaShape, rank: int, modules: Sequence[str], alpha: float) -> Path:
    """A PEFT folder of random bfloat16 weights."""
    heads, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "self_attn.q_proj": (heads, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, heads),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    tensors = {}
    for layer in range(shape.layers):
        for name, (d, k) in sizes.items():
            if name.rpartition(".")[2] in modules:
                key = f"base_model.model.model.layers.{layer}.{name}"
                tensors[f"{key}.lora_A.weight"] = torch.randn(rank, k).mul_(0.01).bfloat16()
                tensors[f"{key}.lora_B.weight"] = torch.randn(d, rank).mul_(0.01).bfloat16()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    write_config(folder, rank, alpha)
    return folder


def write_config(folder: Path, rank: int, alpha: float) -> None:
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def first_token_ms(engine: LlamaEngine, adapter: str, seed: int, prompt: int) -> float:
    """Milliseconds from the request to its first token."""
    draws = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(1000, 40000, (prompt,), generator=draws).tolist())

    async def ask() -> None:
        request = GenerationRequest(
            prompt=ids, max_tokens=1, adapter=adapter, sampling=Sampling(temperature=0)
        )
        async for _ in await engine.submit(request):
            pass

    began = time.perf_counter()
    asyncio.run(ask())
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=64)
    chosen = parser.parse_args()
    models = sorted((chosen.home / "models").glob("*/config.json"))
    model = chosen.model or (models[0].parent if models else None)
    if model is None:
        print(f"paging: skipped, no model under {chosen.home}/models (`make assets`)")
        return
    shape = LlamaShape.read(model)
    with tempfile.TemporaryDirectory() as root:
        swap(chosen, model, shape, Path(root))
        residency(model, shape, Path(root))


def swap(chosen: argparse.Namespace, model: Path, shape: LlamaShape, root: Path) -> None:
    """Load times, and first tokens in a pool that holds two adapters, with no host memory."""
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    folders = [make(root / f"s{n}", shape, chosen.rank, modules, 16.0) for n in range(6)]
    size = (folders[0] / "adapter_model.safetensors").stat().st_size
    token = 2 * shape.kv_heads * shape.head_dim * 2 * shape.layers
    config = EngineConfig(
        dtype="bfloat16",
        context=512,
        pool_bytes=512 * token + int(2.5 * size),
        host_bytes=0,
        share_prefixes=False,
    )
    engine = LlamaEngine(model, config)
    try:
        loads = []
        digests = []
        for folder in folders:
            began = time.perf_counter()
            digests.append(engine.load_adapter(folder).digest)
            loads.append((time.perf_counter() - began) * 1e3)
        cold, warm = [], []
        for number in range(chosen.rounds):
            digest = digests[number % len(digests)]
            tier = next(a.tier for a in engine.adapters() if a.digest == digest)
            took = first_token_ms(engine, digest, number, chosen.prompt)
            if tier == "disk":
                cold.append(took)
            warm.append(first_token_ms(engine, digest, number + 1000, chosen.prompt))
    finally:
        engine.close()
    print(
        f"load of {size / 1e6:.1f} MB: median {statistics.median(loads):.1f} ms, "
        f"best {min(loads):.1f}"
    )
    print(
        f"first token, {chosen.prompt} tokens of prompt: cold {statistics.median(cold):.1f} ms, "
        f"warm {statistics.median(warm):.1f} ms, "
        f"ratio {statistics.median(cold) / statistics.median(warm):.2f} ({len(cold)} cold)"
    )


def residency(model: Path, shape: LlamaShape, root: Path) -> None:
    """500 adapters in the pool: one set of weights under 500 configurations."""
    config = EngineConfig(dtype="bfloat16", context=512, pool_bytes=2 << 30)
    engine = LlamaEngine(model, config)
    try:
        folder = make(root / "many", shape, 16, ("q_proj", "v_proj"), 16.0)
        began = time.perf_counter()
        for number in range(RESIDENT):
            write_config(folder, 16, 16 + number / 100)
            engine.load_adapter(folder)
        took, stats = time.perf_counter() - began, engine.stats()
    finally:
        engine.close()
    print(
        f"{stats.adapters_in_pool} adapters of rank 16 in the pool, loaded in {took:.1f} s: "
        f"{stats.pages_of_adapters * stats.page_bytes / 1e6:.0f} MB, {stats.waste:.1%} waste"
    )


if __name__ == "__main__":
    main()

"""Mixed-adapter serving against transformers and PEFT, on one checkpoint, in one run.

`python benchmarks/serving.py MODEL [--modules q_proj,v_proj] [--adapters 1 8 32 128]`,
or with `--home .sluice` for the first checkpoint under it (skipped if there is none).

A batch of `--batch` greedy requests of `--prompt` random tokens, `--tokens` generated each; adapter
ranks 8 to 64. Ours runs through the whole engine (scheduler, sampling, streams); PEFT's mixed batch
is `generate(adapter_names=...)`. Figures are generated tokens per second, prompts included, medians
of `--repeats` rounds in which every contender takes its turn; ratios are of those medians. More
adapters than `--batch` come as more requests, `--batch` of them at a time; PEFT is measured up to
`--batch` adapters. With `--vllm PYTHON` (an environment that has vLLM, as `make vllm` makes it) its
server takes part: the same prompts as token ids over a Unix socket, one whole answer a request, its
prefix cache off like ours, both cores its own. `of limit` divides by t_base / (t_base + D · bytes /
bandwidth): what is left of the base's rate when the D adapters of a batch are read once a step at
the bandwidth of this run. `--profile` measures no peer and says where our steps' time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks.serving_profile import Profile
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import GenerationRequest, Sampling
from services.serving.engine.vllm.flags import VllmFlags
from services.serving.engine.vllm.server import BASE, VllmServer

RANKS = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Load:
    """One batch: equal for every contender."""

    prompts: torch.Tensor
    tokens: int

    @property
    def generated(self) -> int:
        return len(self.prompts) * self.tokens


def only_model(home: Path) -> Path | None:
    """The first checkpoint under `home`, if there is any."""
    found = sorted((home / "models").glob("*/config.json"))
    return found[0].parent if found else None


def with_adapters(model: Any, names: Sequence[str], modules: str | list[str], root: Path) -> Any:
    """`model` with one LoRA of random weights per name, each saved under `root` as well."""
    from peft import LoraConfig, get_peft_model

    ranks = random.Random(7)
    for number, name in enumerate(names):
        rank = ranks.choice(RANKS)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=modules)
        if number == 0:
            model = get_peft_model(model, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn_like(parameter).mul_(0.01).to(model.dtype)
    model.save_pretrained(root)
    return model.eval()


async def ours(
    engine: LlamaEngine,
    adapters: Sequence[str | None],
    load: Load,
    waits: list[tuple[float, float]],
) -> None:
    """Run the load; row i answers with adapter i, in turn.

    `waits` gets each request's seconds to its first token and to its end.
    """

    async def one(index: int) -> None:
        began, first = time.perf_counter(), 0.0
        stream = await engine.submit(
            GenerationRequest(
                prompt=tuple(load.prompts[index].tolist()),
                max_tokens=load.tokens,
                adapter=adapters[index % len(adapters)],
                sampling=Sampling(temperature=0),
                ignore_eos=True,
            )
        )
        async for _ in stream:
            first = first or time.perf_counter() - began
        waits.append((first, time.perf_counter() - began))

    await asyncio.gather(*(one(index) for index in range(len(load.prompts))))


@torch.inference_mode()
def theirs(model: Any, load: Load, **options: Any) -> None:
    """`generate` of transformers, with PEFT's options where there are adapters."""
    model.generate(
        load.prompts,
        attention_mask=torch.ones_like(load.prompts),
        max_new_tokens=load.tokens,
        min_new_tokens=load.tokens,
        do_sample=False,
        pad_token_id=0,
        **options,
    )


def one_by_one(model: Any, names: Sequence[str], load: Load) -> None:
    """PEFT without mixing: the rows of each adapter are a batch of their own."""
    for number, name in enumerate(names):
        model.set_adapter(name)
        theirs(model, Load(load.prompts[number :: len(names)], load.tokens))


class Vllm:
    """vLLM's server with the same adapters, asked over HTTP."""

    def __init__(
        self, python: Path, model: Path, root: Path, names: Sequence[str], *, dtype: str, batch: int
    ) -> None:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        flags = VllmFlags(
            max_loras=max(len(names), 1),
            max_cpu_loras=max(len(names), 1),
            max_lora_rank=max(RANKS),
            max_model_len=2048,
            gpu_memory_utilization=0.3,
        )
        more = ["--no-enable-prefix-caching", "--max-num-batched-tokens", "4096"]
        self.server = VllmServer(python, model, flags, dtype=dtype, slots=batch, more=more)
        self.server.wait(timeout_s=900)
        with self.server.client() as http:
            for name in names:
                asked = {"lora_name": name, "lora_path": str((root / name).resolve())}
                http.post("/v1/load_lora_adapter", json=asked).raise_for_status()

    async def run(self, models: Sequence[str], load: Load) -> None:
        """Row i is answered by model i, in turn."""
        async with self.server.async_client() as http:

            async def one(index: int) -> None:
                answer = await http.post(
                    "/v1/completions",
                    json={
                        "model": models[index % len(models)],
                        "prompt": load.prompts[index].tolist(),
                        "max_tokens": load.tokens,
                        "temperature": 0,
                        "ignore_eos": True,
                    },
                )
                answer.raise_for_status()
                said = answer.json()["usage"]["completion_tokens"]
                assert said == load.tokens, f"vLLM generated {said} tokens"

            await asyncio.gather(*(one(index) for index in range(len(load.prompts))))


def bandwidth() -> float:
    """Bytes per second at which all threads read memory: the best of five sums of 512 MiB."""
    values = torch.ones(128 << 20)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        values.sum()
        times.append(time.perf_counter() - began)
    return values.numel() * values.element_size() / min(times)


def measured(contenders: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Contender → tokens per second, median of the rounds. A round is every contender once.

    A contender runs its load and returns the number of tokens it generated.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats):
        for name, run in contenders.items():
            began = time.perf_counter()
            generated = run()
            rates[name].append(generated / (time.perf_counter() - began))
            told = f"round {number + 1} of {repeats}, {name}: {rates[name][-1]:.1f} tok/s"
            print(told, file=sys.stderr, flush=True)
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """Print a table of rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--modules", default="all-linear", help="all-linear, or q_proj,v_proj")
    parser.add_argument("--adapters", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--adapter-precision", default="model", choices=["model", "int8"])
    parser.add_argument("--no-one-by-one", action="store_true", help="leave PEFT's slowest out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where our steps' time goes")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="of an environment with vLLM")
    chosen = parser.parse_args()
    folder = chosen.model or only_model(chosen.home)
    if folder is None:
        print(f"serving: skipped, no model under {chosen.home}/models (`make assets`)")
        return
    torch.manual_seed(0)
    load = Load(torch.randint(1000, 40000, (chosen.batch, chosen.prompt)), chosen.tokens)
    with tempfile.TemporaryDirectory() as root:
        (profile if chosen.profile else table)(chosen, folder, load, Path(root))


def opened(chosen: argparse.Namespace, folder: Path) -> LlamaEngine:
    """Our engine."""
    config = EngineConfig(
        dtype=chosen.dtype,
        adapter_precision=chosen.adapter_precision,
        step_tokens=4096,
        context=2048,
        slots=chosen.batch,
        pool_bytes=6 << 30,
        share_prefixes=False,  # repeats must not find their prompts computed
    )
    return LlamaEngine(folder, config)


def profile(chosen: argparse.Namespace, folder: Path, load: Load, root: Path) -> None:
    """Print where the time of prefill and decode steps goes, for the base and each mix."""
    from transformers import AutoModelForCausalLM

    modules = chosen.modules if chosen.modules == "all-linear" else chosen.modules.split(",")
    names = [f"a{number}" for number in range(max(chosen.adapters))]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, chosen.dtype))
    with_adapters(plain, names, modules, root)
    del plain
    engine = opened(chosen, folder)
    try:
        digests = [engine.load_adapter(root / name).digest for name in names]
        watched = Profile(engine)
        for count in (0, *chosen.adapters):
            arms: list[str | None] = [*digests[:count]] or [None]
            waits: list[tuple[float, float]] = []
            asyncio.run(ours(engine, arms, load, []))  # binds and warms
            watched.clear()
            began = time.perf_counter()
            for _ in range(chosen.repeats):
                asyncio.run(ours(engine, arms, load, waits))
            rate = chosen.repeats * load.generated / (time.perf_counter() - began)
            first = statistics.median(first for first, _ in waits)
            print(
                f"{chosen.dtype}, {chosen.modules}, {count} adapters: {rate:.0f} tok/s, "
                f"first token {first:.2f} s"
            )
            print("\n".join(watched.table()), flush=True)
    finally:
        engine.close()


def table(chosen: argparse.Namespace, folder: Path, load: Load, root: Path) -> None:
    """Build every contender, measure, print."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, chosen.dtype)
    modules = chosen.modules if chosen.modules == "all-linear" else chosen.modules.split(",")
    names = [f"a{number}" for number in range(max(chosen.adapters))]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model = with_adapters(
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), names, modules, root
    )
    engine = opened(chosen, folder)
    loaded = [engine.load_adapter(root / name) for name in names]
    mean_bytes = statistics.mean(info.bytes for info in loaded)
    waits: dict[str, list[tuple[float, float]]] = {}

    def run_ours(name: str, count: int) -> Callable[[], int]:
        arms: list[str | None] = [info.digest for info in loaded[:count]] or [None]
        rows = max(chosen.batch, count)
        mine = Load(load.prompts.repeat(-(-rows // chosen.batch), 1)[:rows], load.tokens)

        def run() -> int:
            asyncio.run(ours(engine, arms, mine, waits.setdefault(name, [])))
            return mine.generated

        return run

    def run_theirs(run: Callable[[], None]) -> Callable[[], int]:
        def counted() -> int:
            run()
            return load.generated

        return counted

    def mixed(count: int) -> Callable[[], int]:
        rows = [names[row % count] for row in range(chosen.batch)]
        return run_theirs(lambda: theirs(model, load, adapter_names=rows))

    counts = {"ours, base": 0} | {f"ours, {n} adapters": n for n in chosen.adapters}
    contenders = {name: run_ours(name, count) for name, count in counts.items()}
    contenders["transformers, base"] = run_theirs(lambda: theirs(plain, load))
    peers = [n for n in chosen.adapters if n <= chosen.batch]
    contenders |= {f"PEFT mixed batch, {n} adapters": mixed(n) for n in peers}
    if peers and not chosen.no_one_by_one:
        alone = names[: peers[-1]]
        contenders[f"PEFT one by one, {len(alone)} adapters"] = run_theirs(
            lambda: one_by_one(model, alone, load)
        )
    vllm = None
    if chosen.vllm is not None:
        shown = names[: max(peers, default=0)]
        vllm = Vllm(chosen.vllm, folder, root, shown, dtype=chosen.dtype, batch=chosen.batch)
        vllm_models = {"vLLM, base": [BASE]} | {f"vLLM, {n} adapters": names[:n] for n in peers}
        for name, models in vllm_models.items():
            run = functools.partial(vllm.run, models, load)
            contenders[name] = run_theirs(lambda run=run: asyncio.run(run()))
            contenders[name]()  # its first batch of a kind compiles
    try:
        found = measured(contenders, chosen.repeats)
    finally:
        engine.close()
        if vllm is not None:
            vllm.server.close()
    print(f"{chosen.dtype}, {chosen.modules}, batch {chosen.batch}, kernels: {engine.info.details}")
    speed, base = bandwidth(), found["ours, base"]
    print(
        f"memory read at {speed / 1e9:.1f} GB/s, adapters of {mean_bytes / 1e6:.1f} MB on average"
    )
    step_s = chosen.batch / base
    for name, rate in found.items():
        line = f"{name:<32} {rate:8.1f} tok/s  {rate / base:6.2f} of our base"
        if name in counts:
            distinct = min(counts[name], chosen.batch)
            limit = step_s / (step_s + distinct * mean_bytes / speed)
            first, last = (statistics.median(side) for side in zip(*waits[name], strict=True))
            line += f"  {rate / base / limit:5.2f} of limit {limit:.2f}"
            line += f"  first token {first:6.2f} s, whole answer {last:6.2f} s (median)"
        print(line, flush=True)
    print(f"base against transformers        {base / found['transformers, base']:8.2f} times")
    for n in peers:
        times = found[f"ours, {n} adapters"] / found[f"PEFT mixed batch, {n} adapters"]
        print(f"{n} mixed against PEFT mixed      {times:8.2f} times")
    if vllm is not None:
        print(f"base against vLLM                {base / found['vLLM, base']:8.2f} times")
        for n in peers:
            times = found[f"ours, {n} adapters"] / found[f"vLLM, {n} adapters"]
            print(f"{n} mixed against vLLM mixed      {times:8.2f} times")


if __name__ == "__main__":
    main()

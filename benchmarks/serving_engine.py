"""Tokens per second of the serving engine on a real checkpoint, through its whole scheduler.

`python benchmarks/serving_engine.py MODEL [--dtype float32 bfloat16] [--adapters 0 2]`, or with
`--home .sluice` for the first checkpoint under it (skipped if there is none): prompts of
`--prompt` random tokens, greedy, `--tokens` generated each. Medians of `--repeats`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import Finished, GenerationRequest, Sampling, Token


def only_model(home: Path) -> Path | None:
    """The first checkpoint under `home`, if there is any."""
    found = sorted((home / "models").glob("*/config.json"))
    return found[0].parent if found else None


def random_adapters(base: Path, root: Path, count: int, rank: int) -> list[Path]:
    """LoRA adapters on every linear layer, with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for index in range(count):
        torch.manual_seed(index)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        model.save_pretrained(root / str(index))
        folders.append(root / str(index))
    return folders


async def measure(
    engine: LlamaEngine, arms: list[str | None], batch: int, prompt: int, tokens: int
) -> tuple[float, float]:
    """(prefill tok/s, decode tok/s) of one fresh batch."""

    async def one(index: int) -> tuple[float, float, int]:
        ids = tuple(torch.randint(1000, 40000, (prompt,)).tolist())
        stream = await engine.submit(
            GenerationRequest(
                prompt=ids,
                max_tokens=tokens,
                adapter=arms[index % len(arms)],
                sampling=Sampling(temperature=0),
                ignore_eos=True,
            )
        )
        first, count = 0.0, 0
        async for event in stream:
            if isinstance(event, Token):
                first = first or time.perf_counter()
            if isinstance(event, Finished):
                count = event.completion_tokens
        return first, time.perf_counter(), count

    start = time.perf_counter()
    done = await asyncio.gather(*(one(i) for i in range(batch)))
    filled = max(first for first, _, _ in done)
    end = max(last for _, last, _ in done)
    # Decoding of early sequences overlaps the last prompts; with prompts in few steps it is little.
    return batch * prompt / (filled - start), batch * (tokens - 1) / (end - filled)


async def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--adapters", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16, 32])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.model = arguments.model or only_model(arguments.home)
    if arguments.model is None:
        print(f"serving engine: skipped, no model under {arguments.home}/models (`make assets`)")
        return
    with tempfile.TemporaryDirectory() as root:
        folders = random_adapters(arguments.model, Path(root), max(arguments.adapters), 16)
        for dtype in arguments.dtype:
            engine = LlamaEngine(
                arguments.model, EngineConfig(dtype=dtype, step_tokens=4096, context=2048)
            )
            digests = [engine.load_adapter(folder).digest for folder in folders]
            for count in arguments.adapters:
                for batch in arguments.batch:
                    arms: list[str | None] = [*digests[:count]] if count else [None]
                    runs = [
                        await measure(engine, arms, batch, arguments.prompt, arguments.tokens)
                        for _ in range(arguments.repeats)
                    ]
                    fill, decode = (statistics.median(column) for column in zip(*runs, strict=True))
                    print(
                        f"{dtype} adapters={count} batch={batch}: prefill {fill:.0f} tok/s, "
                        f"decode {decode:.0f} tok/s",
                        flush=True,
                    )
            engine.close()


if __name__ == "__main__":
    asyncio.run(main())

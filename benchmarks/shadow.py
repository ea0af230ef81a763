"""What mirroring to a shadow costs users: p95 latency with and without it, in one run.

`python benchmarks/shadow.py MODEL [--requests 240] [--load 0.5]`, or with `--home .sluice` for the
first checkpoint under it (skipped if there is none).

Users' requests (greedy, `--prompt` random tokens, `--tokens` generated) arrive at random times, and
the engine is busy with them for about `--load` of the time. Rounds of 20 with every request
mirrored to a LoRA take turns with rounds without, so that what else the machine does meets both; a
pair of rounds has the same prompts at the same arrival times, and between rounds the mirrors run
dry, outside the clock. The goal is a ratio of at most 1.05; its interval is a bootstrap over pairs.
`--clock cpu` counts the processor seconds that this process spends between a request's arrival and
its end: what other processes take is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.serving import only_model, with_adapters
from contracts.telemetry import Feedback, Outcome
from services.serving.directory import Route, Target
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.port import GenerationRequest, Sampling
from services.serving.execution import Ask, Execution
from services.serving.residency import Residency

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GOAL = 1.05
Clock = Callable[[], float]
ROUND = 20
RESAMPLES = 2000


class Kept:
    """An outcome sink that keeps what it is given."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def emit(self, signal: Outcome | Feedback) -> None:
        if isinstance(signal, Outcome):
            self.outcomes.append(signal)


async def measured(
    execution: Execution, ask: Ask, route: Route, waits: list[float], now: Clock
) -> None:
    """One user's request, from its arrival to its last token."""
    began = now()
    answer = await execution.begin(ask, route)
    await answer.complete()
    waits.append(now() - began)


async def round_of(
    execution: Execution,
    asks: Sequence[Ask],
    route: Route,
    gaps: Sequence[float],
    now: Clock,
) -> list[float]:
    """Latencies of a round, s; `gaps` are between arrivals, s. Its mirrors have run as well."""
    waits: list[float] = []
    tasks = []
    for ask, gap in zip(asks, gaps, strict=True):
        tasks.append(asyncio.create_task(measured(execution, ask, route, waits, now)))
        await asyncio.sleep(gap)
    await asyncio.gather(*tasks)
    await execution.drain()
    return waits


def p95(rounds: Sequence[Sequence[float]]) -> float:
    values = sorted(value for one in rounds for value in one)
    return values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]


def ratio_interval(off: list[list[float]], on: list[list[float]]) -> tuple[float, float]:
    """95 %, by resampling pairs of rounds."""
    draw, pairs = random.Random(0), list(zip(off, on, strict=True))
    found = []
    for _ in range(RESAMPLES):
        without, mirrored = zip(*draw.choices(pairs, k=len(pairs)), strict=True)
        found.append(p95(mirrored) / p95(without))
    found.sort()
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]


def adapter_of(model: Path, root: Path) -> Path:
    """A LoRA of random weights on `model`."""
    from transformers import AutoModelForCausalLM

    with_adapters(AutoModelForCausalLM.from_pretrained(model), ["default"], "all-linear", root)
    return root


async def main(options: argparse.Namespace, model: Path, root: Path) -> None:
    engine = LlamaEngine(model, EngineConfig(threads=options.threads, share_prefixes=False))
    folder = adapter_of(model, root)
    sink = Kept()
    execution = Execution(engine, Residency(engine, lambda _: folder), sink)
    target, shadow = Target(model="base"), Target(model="shadow", adapter="sha256:" + "0" * 64)
    routes = {
        "off": Route(deployment="bench", arm="stable", target=target),
        "on": Route(deployment="bench", arm="stable", target=target, mirror=shadow),
    }
    draw, now = random.Random(1), CLOCKS[options.clock]

    def ask(number: int) -> Ask:
        prompt = tuple(draw.randrange(100, 20_000) for _ in range(options.prompt))
        request = GenerationRequest(
            prompt=prompt,
            max_tokens=options.tokens,
            sampling=Sampling(temperature=0),
            ignore_eos=True,
        )
        return Ask(id=f"r{number}", tenant="bench", generation=request)

    alone: list[float] = []
    for number in range(4):
        await measured(execution, ask(-number), routes["off"], alone, time.perf_counter)
    await round_of(execution, [ask(-9)], routes["on"], [0.1], now)
    gap_s = statistics.median(alone[1:]) / options.load
    rounds: dict[str, list[list[float]]] = {"off": [], "on": []}
    mirrored = len([o for o in sink.outcomes if o.arm == "shadow"])
    for number in range(options.requests // ROUND):
        order = ("off", "on") if number % 2 else ("on", "off")
        asks = [ask(number * ROUND + i) for i in range(ROUND)]
        gaps = [draw.expovariate(1 / gap_s) for _ in asks]
        for name in order:
            rounds[name].append(await round_of(execution, asks, routes[name], gaps, now))
            told = f"round {number + 1} of {options.requests // ROUND}, shadow {name}"
            print(f"{told}: p95 {1e3 * p95(rounds[name][-1:]):.0f} ms", file=sys.stderr, flush=True)
    engine.close()
    mirrored = len([o for o in sink.outcomes if o.arm == "shadow"]) - mirrored
    low, high = ratio_interval(rounds["off"], rounds["on"])
    ratio = p95(rounds["on"]) / p95(rounds["off"])
    for name, label in (("off", "without a shadow"), ("on", "with every request mirrored")):
        median = statistics.median(value for one in rounds[name] for value in one)
        print(f"{label}: p50 {1e3 * median:.0f} ms, p95 {1e3 * p95(rounds[name]):.0f} ms")
    print(f"{options.clock} clock: p95 ratio {ratio:.3f} ({low:.3f} to {high:.3f}), goal {GOAL}")
    print(f"{mirrored} of {sum(map(len, rounds['on']))} requests were mirrored")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--requests", type=int, default=240, help="with and without, each")
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--load", type=float, default=0.5)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    checkpoint = chosen.model or (only_model(chosen.home) if chosen.home else None)
    if checkpoint is None:
        print("shadow: no checkpoint under --home, skipped")
    else:
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(main(chosen, checkpoint, Path(place)))

"""What the event bus costs, on a real nats-server that syncs every write, beside a plain peer.

`python benchmarks/bus.py [--repeats 5] [--json] [--folder .sluice/bench]`. The peer is a plain
JetStream publish with acknowledgement on the same server, stream and connection: what any program
pays that publishes durably, without a run log's reads and compare-and-set. The server's store is
under `--folder`, which must be on the disk that matters: on a memory file system syncs are free.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from contracts import subjects
from contracts.base import Service
from contracts.curation import SynthesisRequested
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from contracts.telemetry import Outcome
from contracts.training import TrainingStarted
from services.serving.bus import TelemetrySink
from shared.messaging.broker import Bus
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps
from shared.messaging.tail import last_sequence, sequence_of, tail
from shared.settings import Settings

TENANT = "bench"
FACTS = 50
"""Facts of a measured run; a real one has 15 to 30."""
RUNS_AT_ONCE = 8
APPENDS = 100
STEPS = 30
OUTCOMES = 3000

_numbers = count()


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median of the repeats, with the smallest and the largest."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    goal: str = ""
    ratio_to_peer: float | None = None
    peer: str = ""


def fresh() -> RunRef:
    """A run nobody has written to."""
    return RunRef(TENANT, f"r{next(_numbers)}")


def fact(number: int) -> TrainingStarted:
    """A fact of usual size that no service waits for."""
    parts = dict.fromkeys(("weights", "gradients", "optimizer", "activations"), 1 << 28)
    return TrainingStarted(recipe="sha256:" + "0" * 64, steps=number, memory_estimate_bytes=parts)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1e3


async def publish(js: JetStreamContext, ref: RunRef, number: int) -> None:
    """The peer: the same subject and body, acknowledged, and nothing else."""
    event = fact(number)
    await js.publish(
        subjects.fact(ref.tenant, ref.run, event),
        event.model_dump_json(by_alias=True).encode(),
        stream="RUN",
        timeout=5.0,
    )


async def append_ms(js: JetStreamContext) -> list[float]:
    """Each append to two runs of `FACTS` facts, one after the other."""
    log, times = RunLog(js), []
    for ref in (fresh(), fresh()):
        for n in range(FACTS):
            times.append(await timed(lambda r=ref, n=n: log.append(r, fact(n), cause=str(n))))
    return times


async def publish_ms(js: JetStreamContext) -> list[float]:
    """Each publish of the peer, as many as `append_ms` makes."""
    ref = fresh()
    return [await timed(lambda n=n: publish(js, ref, n)) for n in range(2 * FACTS)]


async def per_second(write: Callable[[RunRef, int], Awaitable[object]]) -> float:
    """Facts per second of runs written at once, each by a writer of its own."""

    async def one(ref: RunRef) -> None:
        for n in range(APPENDS):
            await write(ref, n)

    refs = [fresh() for _ in range(RUNS_AT_ONCE)]
    began = time.perf_counter()
    await asyncio.gather(*map(one, refs))
    return RUNS_AT_ONCE * APPENDS / (time.perf_counter() - began)


async def load_ms(js: JetStreamContext) -> tuple[float, float]:
    """A run of `FACTS` facts: read for the first time, and again."""
    ref, writer = fresh(), RunLog(js)
    for n in range(FACTS):
        await writer.append(ref, fact(n), cause=str(n))
    reader = RunLog(js)
    cold = await timed(lambda: reader.load(ref))
    warm = statistics.median([await timed(lambda: reader.load(ref)) for _ in range(20)])
    return cold, warm


@asynccontextmanager
async def echo_service(settings: Settings) -> AsyncIterator[None]:
    """A service whose one step has nothing to do."""
    bus = Bus(Service.SYNTHESIS, settings)

    async def handler(step: Step) -> RowsSynthesized:
        return RowsSynthesized(rows="sha256:" + "1" * 64, requested=1, accepted=1, distinct_2=1.0)

    Steps(bus).on("synthesize")(handler)
    async with App(bus).running():
        yield


async def step_ms(js: JetStreamContext) -> list[float]:
    """From a stored trigger to the stored fact that answers it, as a third party sees both."""
    log, times = RunLog(js), []
    for _ in range(STEPS):
        ref = fresh()
        seen: asyncio.Queue[float] = asyncio.Queue()

        async def note(_: Msg, seen: asyncio.Queue[float] = seen) -> None:
            seen.put_nowait(time.perf_counter())

        follower = await js.subscribe(
            subjects.run_log(ref.tenant, ref.run), stream="RUN", ordered_consumer=True, cb=note
        )
        asked = SynthesisRequested(seeds="sha256:" + "0" * 64, rows=1)
        await log.append(ref, asked, cause="bench")
        async with asyncio.timeout(30):
            began = await seen.get()
            times.append((await seen.get() - began) * 1e3)
        await follower.unsubscribe()
    return times


async def telemetry_per_second(js: JetStreamContext) -> float:
    """Outcomes through serving's sink, read and parsed at the other end as rollout does it."""
    since = await last_sequence(js, "TELEMETRY") + 1
    sink = TelemetrySink(lambda: js)

    async def consume() -> None:
        seen = 0
        async for batch in tail(js, "TELEMETRY", subjects.telemetry(TENANT, "d"), since=since):
            for message in batch:
                Outcome.model_validate_json(message.data)
                sequence_of(message)
            seen += len(batch)
            if seen >= OUTCOMES:
                return

    began = time.perf_counter()
    async with sink.running():
        reading = asyncio.create_task(consume())
        for n in range(OUTCOMES):
            await sink.emit(outcome(n))
            if n % 64 == 0:
                await asyncio.sleep(0)
        await reading
    assert not sink.dropped, f"{sink.dropped} outcomes dropped"
    return OUTCOMES / (time.perf_counter() - began)


def outcome(number: int) -> Outcome:
    """An outcome as serving reports it."""
    return Outcome(
        request_id=f"{next(_numbers)}-{number}",
        tenant=TENANT,
        deployment="d",
        arm="stable",
        model="base",
        at=time.time(),
        latency_ms=812.5,
        time_to_first_token_ms=95.0,
        prompt_tokens=201,
        completion_tokens=34,
        finish_reason="stop",
        schema_valid=True,
        task_success=True,
    )


class Figures:
    """Values by name, one per repeat."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._units: dict[str, tuple[str, str, str]] = {}

    def add(self, name: str, value: float, unit: str, *, goal: str = "", peer: str = "") -> None:
        self._values.setdefault(name, []).append(value)
        self._units[name] = unit, goal, peer

    def rows(self) -> list[Row]:
        rows = []
        for name, values in self._values.items():
            unit, goal, peer = self._units[name]
            ratio = None
            if peer:  # of values taken in the same repeat, so that a busy neighbour meets both
                pairs = zip(values, self._values[peer], strict=True)
                ratio = statistics.median(mine / theirs for mine, theirs in pairs)
            middle = statistics.median(values)
            rows.append(Row(name, unit, middle, min(values), max(values), goal, ratio, peer))
        return rows


async def repeat_once(figures: Figures, js: JetStreamContext) -> None:
    plain = await publish_ms(js)
    figures.add("plain publish p50", percentile(plain, 0.5), "ms")
    figures.add("plain publish p95", percentile(plain, 0.95), "ms")
    append = await append_ms(js)
    figures.add("append p50", percentile(append, 0.5), "ms", goal="<= 2", peer="plain publish p50")
    figures.add("append p95", percentile(append, 0.95), "ms", peer="plain publish p95")
    figures.add(
        f"plain publishes, {RUNS_AT_ONCE} at once",
        await per_second(lambda ref, n: publish(js, ref, n)),
        "1/s",
    )
    log = RunLog(js)
    figures.add(
        f"appends, {RUNS_AT_ONCE} runs at once",
        await per_second(lambda ref, n: log.append(ref, fact(n), cause=str(n))),
        "1/s",
        peer=f"plain publishes, {RUNS_AT_ONCE} at once",
    )
    cold, warm = await load_ms(js)
    figures.add(f"load of {FACTS} facts, cold", cold, "ms")
    figures.add(f"load of {FACTS} facts, warm", warm, "ms")
    steps = await step_ms(js)
    figures.add("step, trigger to fact p50", percentile(steps, 0.5), "ms")
    figures.add("step, trigger to fact p95", percentile(steps, 0.95), "ms")
    figures.add(
        "telemetry, published and read", await telemetry_per_second(js), "1/s", goal=">= 5000"
    )


async def measure(folder: Path, repeats: int) -> list[Row]:
    """All figures, on a server of our own."""
    server = EmbeddedNats(folder / "nats", port=free_port())
    await server.start()
    figures = Figures()
    client = await nats.connect(server.url)
    try:
        js = client.jetstream(timeout=5)
        await provision(js)
        settings = Settings(home=folder / "home", nats_url=server.url)
        async with echo_service(settings):
            await repeat_once(Figures(), js)  # the first one warms up and is not counted
            for number in range(repeats):
                print(f"repeat {number + 1} of {repeats}", file=sys.stderr, flush=True)
                await repeat_once(figures, js)
    finally:
        await client.close()
        server.stop()
    return figures.rows()


def table(rows: list[Row]) -> str:
    """For people."""
    lines = [f"{'figure':36} {'median':>9} {'range':>19} {'unit':5} {'goal':8} ratio to the peer"]
    for row in rows:
        ratio = f"{row.ratio_to_peer:.2f} x {row.peer}" if row.ratio_to_peer else ""
        span = f"{row.low:.2f} .. {row.high:.2f}"
        lines.append(
            f"{row.name:36} {row.median:9.2f} {span:>19} {row.unit:5} {row.goal:8} {ratio}".rstrip()
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--folder", type=Path, default=Path(".sluice/bench"))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        rows = asyncio.run(measure(Path(place).resolve(), arguments.repeats))
    if arguments.json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    print(table(rows))


if __name__ == "__main__":
    main()

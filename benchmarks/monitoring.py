"""Outcomes per second of one monitoring process on one core, and the memory it takes.

`python benchmarks/monitoring.py [--outcomes 60000] [--deployments 1000] [--folder .sluice/bench]`.
The outcomes lie in the TELEMETRY stream of a real nats-server before the service starts as a
process of its own, bound to one core. Each deployment answers by its frozen base and an adapter,
and 2 % of the requests fail. The clock runs from the first acknowledgement to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import nats
from nats.js import JetStreamContext

from contracts import subjects
from contracts.telemetry import Outcome
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.provision import provision

GOAL_PER_S = 5000
TENANT = "bench"


def outcome(number: int, deployments: int, rng: random.Random) -> Outcome:
    """Traffic that says something about most metrics."""
    return Outcome(
        request_id=f"{number:032x}",
        tenant=TENANT,
        deployment=f"d{number % deployments}",
        arm="stable",
        model="Base-tool_calls-v1" if rng.random() < 0.5 else "base",
        at=1e9 + number / GOAL_PER_S,
        latency_ms=rng.gauss(800, 50),
        prompt_tokens=200,
        completion_tokens=30,
        finish_reason="stop",
        schema_valid=True,
        task_success=rng.random() > 0.02,
        tool_call_valid=True,
        answer_logprob=-9.0,
    )


async def fill(connection: nats.NATS, count: int, deployments: int) -> None:
    """Publish without waiting for each acknowledgement, then wait until all are stored."""
    rng = random.Random(0)
    for number in range(count):
        body = outcome(number, deployments, rng)
        subject = subjects.telemetry(TENANT, body.deployment)
        await connection.publish(subject, body.model_dump_json().encode())
        if number % 1000 == 0:
            await connection.flush()
    js = connection.jetstream()
    await until(lambda: stored(js), count)


async def until(reading: Callable[[], Awaitable[int]], count: int) -> int:
    """What `reading` says when it has reached `count`."""
    while True:
        if (reached := await reading()) >= count:
            return reached
        await asyncio.sleep(0.02)


async def stored(js: JetStreamContext) -> int:
    return int((await js.stream_info("TELEMETRY")).state.messages)


async def acknowledged(js: JetStreamContext) -> int:
    info = await js.consumer_info("TELEMETRY", "monitoring-outcomes")
    return int(info.ack_floor.stream_seq) if info.ack_floor else 0


def cpu_s(pid: int) -> float:
    """User and system time of a process, proc(5) fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1e3 for line in status.splitlines() if "VmHWM" in line)


async def measure(folder: Path, count: int, deployments: int) -> None:
    """One run, printed."""
    server = EmbeddedNats(folder / "nats", port=free_port())
    await server.start()
    connection = await nats.connect(server.url)
    js = connection.jetstream()
    await provision(js)
    await fill(connection, count, deployments)
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.monitoring",
        env={**os.environ, "SLUICE_HOME": str(folder), "SLUICE_NATS_URL": server.url},
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.sched_setaffinity(service.pid, {0})
    try:
        first = await until(lambda: acknowledged(js), 1)
        began, cpu_before = time.perf_counter(), cpu_s(service.pid)
        await until(lambda: acknowledged(js), count)
        took, cpu = time.perf_counter() - began, cpu_s(service.pid) - cpu_before
        done = count - first
        print(f"{done / took:8.0f} outcomes/s sustained (goal {GOAL_PER_S})")
        print(f"{1e6 * cpu / done:8.0f} us of CPU for each")
        print(
            f"{memory_mb(service.pid):8.0f} MB at its peak, {deployments} deployments of 2 models"
        )
        print(f"{(await js.stream_info('ALERTS')).state.messages:8d} alerts published")
    finally:
        service.terminate()
        await service.wait()
        await connection.close()
        server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=int, default=60_000)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path(".sluice/bench"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        asyncio.run(measure(Path(place).resolve(), arguments.outcomes, arguments.deployments))


if __name__ == "__main__":
    main()

"""Live traffic for a deployment: a plain HTTP client, as any user of the gateway would write one.

    python examples/tool-calls/traffic.py rows.jsonl --deployment tool-assistant --rate 5

Rows (`messages`, `tools`) are replayed in a loop against `/v1/chat/completions`, each under a
conversation id of its own, until the deadline, the number of requests, `--until-file`, or SIGTERM.
A deployment that does not exist yet (404), is busy (429, 503) or does not answer is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

TRY_AGAIN = {404, 429, 503}
LONGEST_WAIT_S = 10.0
RECENT = 2000
"""Latencies the percentiles look back on."""


@dataclass(slots=True)
class Tally:
    """What the client has seen."""

    sent: int = 0
    ok: int = 0
    retried: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def line(self, elapsed_s: float) -> str:
        """One line of where things stand."""
        ordered = sorted(self.latencies_ms)
        p50, p95 = (ordered[int(q * (len(ordered) - 1))] if ordered else 0.0 for q in (0.5, 0.95))
        models = ", ".join(f"{name} {count}" for name, count in self.models.most_common())
        failed = ", ".join(f"{name} {count}" for name, count in self.failures.most_common())
        return (
            f"{elapsed_s:6.0f} s  {self.sent} requests, {self.ok} ok"
            + (f", {self.retried} waits" if self.retried else "")
            + f" | p50 {p50:.0f} ms, p95 {p95:.0f} ms | {models or 'no answer yet'}"
            + (f" | failed: {failed}" if failed else "")
        )


class Pace:
    """Lets requests go at `per_s`, evenly; 0 is as fast as the workers are."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s if per_s > 0 else 0.0
        self._next = time.monotonic()

    async def turn(self) -> None:
        if self._gap_s:
            now = time.monotonic()
            self._next = max(self._next, now - 1.0)  # never more than a second's arrears at once
            wait_s, self._next = self._next - now, self._next + self._gap_s
            await asyncio.sleep(max(0.0, wait_s))


def read_rows(path: Path, deployment: str) -> list[dict[str, Any]]:
    """The request body of each row."""
    bodies = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        row = json.loads(line)
        body = {
            "model": deployment,
            "messages": row["messages"],
            "max_tokens": 64,
            "temperature": 0,
        }
        if row.get("tools"):
            body["tools"] = row["tools"]
        bodies.append(body)
    return bodies


async def ask(client: httpx.AsyncClient, body: dict[str, Any], tally: Tally, stop: asyncio.Event):
    """One request, tried until it is answered, refused for good, or we stop."""
    headers = {"X-Conversation-Id": uuid.uuid4().hex}
    wait_s = 0.5
    while not stop.is_set():
        began = time.monotonic()
        try:
            answer = await client.post("chat/completions", json=body, headers=headers)
            again = answer.status_code in TRY_AGAIN
        except httpx.ConnectError:
            answer, again = None, True
        except httpx.HTTPError as error:
            tally.sent += 1
            tally.failures[type(error).__name__] += 1
            return
        if again:
            tally.retried += 1
            await wait(stop, wait_for(answer, wait_s))
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            continue
        tally.sent += 1
        if answer.is_success:
            tally.ok += 1
            tally.models[answer.headers.get("X-Sluice-Model", "unnamed")] += 1
            tally.latencies_ms.append(1000 * (time.monotonic() - began))
        else:
            tally.failures[f"HTTP {answer.status_code}"] += 1
        return


def wait_for(answer: httpx.Response | None, wait_s: float) -> float:
    """The server's `Retry-After` in seconds, else our own growing wait."""
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    return min(LONGEST_WAIT_S, float(asked)) if asked.isdigit() else wait_s


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return at once when we stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def work(
    client: httpx.AsyncClient,
    bodies: Iterator[dict[str, Any]],
    pace: Pace,
    tally: Tally,
    stop: asyncio.Event,
) -> None:
    """One of the concurrent users. Ends with the requests, or when we stop."""
    while not stop.is_set():
        await pace.turn()
        body = next(bodies, None)
        if body is None or stop.is_set():
            return
        await ask(client, body, tally, stop)


async def report(args: argparse.Namespace, tally: Tally, stop: asyncio.Event) -> None:
    """Print the live line; notice the deadline and the stop file."""
    began = printed = time.monotonic()
    while not stop.is_set():
        await wait(stop, 0.25)
        now = time.monotonic()
        late = args.seconds is not None and now - began >= args.seconds
        if late or (args.until_file and args.until_file.exists()):
            stop.set()
        if now - printed >= args.every:
            printed = now
            print(tally.line(now - began), flush=True)
    print(tally.line(time.monotonic() - began), flush=True)


async def drive(args: argparse.Namespace) -> Tally:
    """Send traffic until an end is reached."""
    rows = read_rows(args.rows, args.deployment)
    if not rows:
        sys.exit(f"{args.rows} has no rows")
    bodies = itertools.islice(itertools.cycle(rows), args.requests)
    tally, stop, pace = Tally(), asyncio.Event(), Pace(args.rate)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    base_url = args.url.rstrip("/") + "/"
    async with httpx.AsyncClient(
        base_url=base_url, timeout=args.timeout, headers=headers
    ) as client:
        reporter = asyncio.create_task(report(args, tally, stop))
        workers = (work(client, bodies, pace, tally, stop) for _ in range(args.concurrency))
        await asyncio.gather(*workers)
        stop.set()
        await reporter
    return tally


def main() -> None:
    """Parse arguments and drive. Exits 1 if nothing was answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path, help="JSON Lines with `messages` and, if any, `tools`")
    parser.add_argument("--deployment", required=True, help="the alias clients name as `model`")
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--key", default="", help="API key, sent as a bearer token")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second; 0: unlimited")
    parser.add_argument("--requests", type=int, help="stop after this many")
    parser.add_argument("--seconds", type=float, help="stop after this long")
    parser.add_argument("--until-file", type=Path, help="stop when this file exists")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one answer")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between live lines")
    tally = asyncio.run(drive(parser.parse_args()))
    sys.exit(0 if tally.ok else 1)


if __name__ == "__main__":
    main()

"""`make soak`: a server of 500 adapters under load while everything happens to it.

A server process answers eight clients of five tenants, zipf over 500 adapters of ranks 8 to 64.
Meanwhile adapters are loaded, unloaded, pinned and unpinned at random, every tenth answer is broken
off by its client, and from time to time the server is killed with SIGKILL and started again. A
greedy answer must equal the first one seen of that adapter and prompt. Prints one line of figures;
exit code 1 if anything failed, or memory grew past the first tenth's by a third.
"""

import argparse
import contextlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import uvicorn

from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.http.app import create_app
from services.serving.keys import Keys
from shared.leash import leashed
from shared.testing.tiny_model import build_tiny_llama
from tests.serving import crowd
from tests.serving.backends import make_adapter
from tests.serving.live_server import Outcomes

ADAPTERS, CLIENTS = 500, 8
KILL_EVERY_S = 60.0


class Forgetful(Outcomes):
    async def emit(self, outcome):
        """Half an hour of outcomes is not what is measured."""


def serve(base: Path, root: Path, port: int) -> None:
    """The server process."""
    engine = LlamaEngine(
        base, EngineConfig(slots=8, queue=256, pool_bytes=12 << 20, host_bytes=6 << 20)
    )
    app = create_app(
        engine=lambda: engine,
        directory=crowd.directory_of(ADAPTERS),
        keys=Keys("sk-service", lambda: {tenant: f"sk-{tenant}" for tenant in crowd.TENANTS}),
        sink=Forgetful(),
        folders=lambda digest: root / str(crowd.number_of(digest)),
    )
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


class Soak:
    """The load, and what it saw."""

    def __init__(self, base: Path, root: Path, seed: int) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._command = [sys.executable, "-m", "tests.serving.soak", "--serve"]
        self._command += [str(base), str(root), str(self.port)]
        self._seed = seed
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self.answers: dict[tuple[int, int], str] = {}
        self.resident: list[int] = []
        self.over = threading.Event()
        self.away = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        self.process = subprocess.Popen(leashed(self._command))
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/healthz").is_success:
                    break
            if self.process.poll() is not None:
                raise SystemExit("the server does not start")
            time.sleep(0.2)
        self.born = time.monotonic()

    def note(self, kind: str, problem: str | None = None) -> None:
        with self._lock:
            self.seen[kind] += 1
            if problem is not None:
                self.failures.append(problem)

    def client(self, number: int) -> None:
        """Ask until it is over; what a kill breaks off is asked again."""
        draws = random.Random(self._seed * 100 + number)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as http:
            while not self.over.is_set():
                killed = self.away.is_set()
                try:
                    self.once(http, draws)
                except httpx.HTTPError as error:
                    if not (killed or self.away.wait(2.0)):
                        self.note("broken", f"client {number}: {error!r}")
                    time.sleep(0.3)

    def once(self, http: httpx.Client, draws: random.Random) -> None:
        adapter, prompt = crowd.zipf(ADAPTERS, draws), draws.randrange(20)
        tenant = crowd.tenant_of(adapter)
        body = {
            "model": crowd.adapter_id(adapter),
            "prompt": [5 + prompt] * (4 + prompt),
            "max_tokens": 12,
            "temperature": 0,
        }
        headers = {"Authorization": f"Bearer sk-{tenant}"}
        what = draws.random()
        if what < 0.1:
            body |= {"stream": True, "max_tokens": 300, "ignore_eos": True}
            with http.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
                next(answer.iter_lines())
            self.note("cancelled")
        elif what < 0.2:
            change = draws.choice(("load", "unload", "pin", "unpin", "unpin"))
            admin = {"Authorization": f"Bearer sk-service.{tenant}"}
            path = f"/v1/adapters/{crowd.adapter_id(adapter)}/{change}"
            answer = http.post(path, headers=admin)
            full = answer.status_code == 422 and "pinned" in answer.text
            wrong = not (answer.is_success or full)
            self.note(change, f"{change}: {answer.text[:200]}" if wrong else None)
        elif what < 0.22:
            stranger = next(t for t in crowd.TENANTS if t != tenant)
            answer = http.post(
                "/v1/completions", json=body, headers={"Authorization": f"Bearer sk-{stranger}"}
            )
            leaked = answer.status_code != 404
            self.note("foreign", f"another tenant got {answer.status_code}" if leaked else None)
        else:
            answer = http.post("/v1/completions", json=body, headers=headers)
            if answer.status_code == 429:
                self.note("refused")
                return
            if not answer.is_success:
                self.note("failed", answer.text[:200])
                return
            text = answer.json()["choices"][0]["text"]
            with self._lock:
                first = self.answers.setdefault((adapter, prompt), text)
            other = f"adapter {adapter}, prompt {prompt}: {text!r} was {first!r}"
            self.note("answered", None if text == first else other)

    def watch(self, seconds: float, kill_every_s: float) -> None:
        """Measure, and kill."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1.0)
            age = time.monotonic() - self.born
            if age > 10:
                self.resident.append(psutil.Process(self.process.pid).memory_info().rss)
            if age > kill_every_s and end - time.monotonic() > 15:
                self.away.set()
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                self.note("killed")
                self.start()
                time.sleep(1.0)
                self.away.clear()


def run(minutes: float, seed: int, kill_every_s: float) -> int:
    """The whole soak; its exit code."""
    with tempfile.TemporaryDirectory() as place:
        base = build_tiny_llama(Path(place) / "tiny")
        template = make_adapter(base, Path(place) / "t", seed=3, r=3, targets=["q_proj", "v_proj"])
        soak = Soak(base, crowd.make_crowd(template, Path(place) / "crowd", ADAPTERS), seed)
        soak.start()
        clients = [threading.Thread(target=soak.client, args=(n,)) for n in range(CLIENTS)]
        try:
            for client in clients:
                client.start()
            soak.watch(minutes * 60, kill_every_s)
        finally:
            soak.over.set()
            for client in clients:
                client.join()
            soak.process.kill()
            soak.process.wait()
    begun = soak.resident[: max(len(soak.resident) // 10, 1)]
    grew = max(soak.resident) / max(begun)
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(soak.seen.items()))
    print(f"seed {seed}: {counts}; at most {max(soak.resident) / 1e6:.0f} MB, {grew:.2f} x")
    for failure in soak.failures[:20]:
        print(f"failure: {failure}")
    return int(bool(soak.failures) or grew > 4 / 3)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--minutes", type=float, default=30)
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--kill-every", type=float, default=KILL_EVERY_S, metavar="SECONDS")
        chosen = parser.parse_args()
        sys.exit(run(chosen.minutes, chosen.seed, chosen.kill_every))

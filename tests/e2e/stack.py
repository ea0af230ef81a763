"""A whole Sluiceway on this machine: every service a process, a tiny real model and job."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from shared.messaging.accounts import OPERATOR, Logins
from shared.messaging.embedded import free_port
from shared.testing.tiny_model import build_tiny_llama

TENANT = "acme"
ANSWER = "yes"
MODEL = "tiny"
CLI = "services.cli"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a stack listens."""

    nats: int
    serving: int
    console: int


@dataclass(slots=True)
class Stack:
    """A running `sluice up`."""

    home: Path
    ports: Ports
    process: subprocess.Popen[bytes]
    module: str = CLI

    @property
    def nats_url(self) -> str:
        """With the operator's login."""
        return f"nats://{Logins(self.home).login(OPERATOR)}@127.0.0.1:{self.ports.nats}"

    @property
    def serving_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.serving}/v1"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home) | {
            "SLUICE_NATS_URL": self.nats_url,
            "SLUICE_SERVING_URL": self.serving_url,
        }

    @property
    def client_key(self) -> str:
        return str(json.loads((self.home / "keys" / "client.json").read_text())[TENANT])

    def sluice(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def story(self, run: str) -> dict[str, Any]:
        shown = self.sluice("show", run, "--json")
        assert shown.returncode == 0, shown.stderr
        story: dict[str, Any] = json.loads(shown.stdout)
        return story

    def pid_of(self, service: str) -> int | None:
        """The process of a service, found below `sluice up`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if f"services.{service}" in child.cmdline():
                    return child.pid
            except psutil.Error:
                continue
        return None

    def pid_of_broker(self) -> int | None:
        """The nats-server below `sluice up`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if Path(child.cmdline()[0]).name == "nats-server":
                    return child.pid
            except (psutil.Error, IndexError):
                continue
        return None

    def restart(self, *, timeout_s: float = 150) -> None:
        """SIGTERM, then another `sluice up` on the same home and ports."""
        stop_up(self.process)
        self.process = start_up(self.home, self.ports, timeout_s=timeout_s, module=self.module)

    def ask(
        self, word: str, conversation: str, *, deployment: str = "answers", url: str | None = None
    ) -> httpx.Response:
        """`url` is another replica's."""
        return httpx.post(
            f"{url or self.serving_url}/chat/completions",
            headers={
                "Authorization": f"Bearer {self.client_key}",
                "X-Conversation-Id": conversation,
            },
            json={
                "model": deployment,
                "messages": [{"role": "user", "content": word}],
                "max_tokens": 8,
                "temperature": 0,
            },
            timeout=30,
        )


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SLUICE_HOME": str(home),
        "SLUICE_TENANT": TENANT,
        "SLUICE_SERVING_TENANTS": json.dumps([TENANT, "globex"]),
        "SLUICE_SERVING_DTYPE": "float32",
        "SLUICE_SERVING_CONTEXT": "512",
        "SLUICE_SERVING_SHADOW_SHARE": "0.5",  # users here never rest, and nobody times them
        "SLUICE_BASE": MODEL,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_WAIT_POLICY": "passive",
    }


@contextmanager
def running_stack(home: Path, *, timeout_s: float = 150, module: str = CLI) -> Iterator[Stack]:
    """Everything up, until the block ends; then everything down. `module` is run as `sluice`."""
    build_tiny_llama(home / "models" / MODEL)
    ports = Ports(free_port(), free_port(), free_port())
    process = start_up(home, ports, timeout_s=timeout_s, module=module)
    stack = Stack(home, ports, process, module)
    try:
        yield stack
    finally:
        stop_up(stack.process)


def start_up(
    home: Path, ports: Ports, *, timeout_s: float, module: str = CLI
) -> subprocess.Popen[bytes]:
    """A `sluice up` that is ready."""
    ready = home / "ready"
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", module, "up", "--home", str(home)),
                *("--port", str(ports.nats), "--serving-port", str(ports.serving)),
                *("--console-port", str(ports.console), "--ready-file", str(ready)),
            ],
            env=environment(home),
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + timeout_s
    try:
        while not ready.exists():
            assert process.poll() is None, (home / "up.log").read_text()
            assert time.monotonic() < deadline, (home / "up.log").read_text()
            time.sleep(0.1)
    except BaseException:
        stop_up(process)
        raise
    return process


def stop_up(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that is not enough."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)
    finally:
        process.kill()
        process.wait()


def write_job(folder: Path, **changes: Any) -> Path:
    """A job that teaches the tiny model one answer, with its data beside it."""
    rng = random.Random(7)
    words = {"".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(400)}
    texts = [f"{a} {b}" for a, b in zip(*[iter(sorted(words))] * 2, strict=False)]
    rng.shuffle(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in {
        "train": texts[:120],
        "dev": texts[120:150],
        "heldout": texts[150:190],
    }.items():
        rows = [
            {
                "id": f"{name}-{n}",
                "messages": [{"role": "user", "content": text}],
                **({"target": ANSWER} if name == "train" else {"expected": ANSWER}),
            }
            for n, text in enumerate(chosen)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job: dict[str, Any] = {
        "schema": "sluice.job/v1",
        "name": "answers",
        "tenant": TENANT,
        "task_namespace": "answers",
        "base": {"model": MODEL, "name": "Tiny"},
        "behaviour": {
            "description": "Answer every request with yes.",
            "scorer": "exact_match",
            "target": 0.9,
            "max_tokens": 8,
        },
        "data": [
            {
                "uri": "train.jsonl",
                "licence": "Apache-2.0",
                "provenance": {"source": "written by this test"},
            }
        ],
        "evaluation": {
            "dev": {"uri": "dev.jsonl", "licence": "Apache-2.0"},
            "heldout": {"uri": "heldout.jsonl", "licence": "Apache-2.0"},
            "general": {"tasks": ["sluice_basics"], "limit": 24},
        },
        "method": {
            "lora": {"r": 8, "alpha": 16},
            "train": {
                "learning_rate": 0.01,
                "max_steps": 40,
                "batch_size": 8,
                "checkpoint_every": 5,
                "precision": "float32",
            },
        },
        "curation": {"composition": {"positive": 1.0, "boundary": 0.0, "negative": 0.0}},
        # A random base knows nothing that it could forget: the margin lets any decay pass.
        "gates": {
            "accept_inconclusive": ["G6", "G7", "G12"],
            "minimum_validity": 0.8,
            "maximum_decay": 1.0,
        },
        "rollout": {
            "deployment": "answers",
            "shadow_outcomes": 6,
            "stages": [{"percent": 50, "outcomes": 4}, {"percent": 100, "outcomes": 4}],
            # the tiny base never ends an answer, so latencies do not compare
            "maximum_latency_ratio": 1000,
        },
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(_merged(job, changes)))
    return path


def _merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(document)
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if deeper else value
    return result

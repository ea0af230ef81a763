"""A provisioned broker, and the command line as a user runs it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from typer.testing import CliRunner

from contracts.export import SCHEMAS
from services.cli.main import app
from shared.messaging.provision import provision
from shared.settings import Settings

SAMPLES = SCHEMAS.parent / "samples"
ROOT = SCHEMAS.parent.parent


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self) -> list:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
async def js(nats_server):
    connection = await nats.connect(nats_server.url)
    context = connection.jetstream()
    await provision(context)
    yield context
    await connection.close()


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    return inherited | {
        "SLUICE_HOME": str(settings.home),
        "SLUICE_NATS_URL": settings.nats_url,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def start(environment: dict[str, str]) -> Callable:
    """Start `sluice …`."""

    async def started(*arguments: object, cwd: Path = ROOT) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            *map(str, arguments),
            cwd=cwd,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    return started


@pytest.fixture
def sluice(environment: dict[str, str]) -> Callable:
    """Run `sluice …` to its end, in a thread of this process: a process costs seconds."""
    sluice_settings = {k: v for k, v in environment.items() if k.startswith("SLUICE_")}

    async def run(*arguments: object) -> Done:
        done = await asyncio.to_thread(
            CliRunner().invoke, app, [str(part) for part in arguments], env=sluice_settings
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """The sample job beside the files it names."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    row = json.dumps(json.loads((SAMPLES / "row.json").read_text())) + "\n"
    for name, count in (("train", 3), ("dev", 2), ("heldout", 2)):
        (folder / f"{name}.jsonl").write_text(row * count)
    (folder / "job.yaml").write_text(JOB)
    return folder


JOB = """\
schema: sluice.job/v1
name: tool-calls
tenant: demo
task_namespace: tool_calls
base: {model: smollm2-135m-instruct}
behaviour:
  description: Call the right function.
  scorer: tool_call
  target: 0.6
data:
  - uri: train.jsonl
    licence: Apache-2.0
    provenance: {source: BFCL, retrieved: 2026-05-04}
evaluation:
  dev: {uri: dev.jsonl, licence: Apache-2.0}
  heldout: {uri: heldout.jsonl, licence: Apache-2.0}
rollout: {deployment: assistant}
"""

"""lm-evaluation-harness against our own completions endpoint, in a process of its own.

The harness loads torch and many megabytes of registries, changes global state and reports progress
on stderr; a subprocess keeps that out of the service and lets a cancelled run end at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from services.evaluation.gates.g5 import BenchmarkItem
from shared.diskspace import says_disk_full
from shared.errors import DiskFull, PeerUnavailable

SUITES = Path(__file__).parents[1] / "suites"
"""Tasks we ship; `include_path` of the harness."""

OnProgress = Callable[[int, int], None]
"""Requests done, requests in all."""

_ROOT = Path(__file__).parents[3]
_PROGRESS = re.compile(rb"Requesting API:.*?(\d+)/(\d+)")
_TAIL_BYTES = 4000


async def run_harness(
    *,
    model: str,
    base_url: str,
    tokenizer: Path,
    tasks: Sequence[str],
    limit: int | None,
    work: Path,
    own_tasks: Path | None = None,
    api_key: str = "unused",
    concurrency: int = 2,
    batch_size: int = 32,
    maximum_length: int = 2048,
    offline: bool = True,
    on_progress: OnProgress | None = None,
) -> tuple[BenchmarkItem, ...]:
    """Every item of `tasks`, as `model` at `base_url` (ending in `/v1`) answers it.

    Tasks are ours, those in the folder `own_tasks`, or the harness's (which need the network).
    `work` keeps the plan and the finished log: the same plan is not run again. The plan knows the
    model by name only, so name `work` after the model's digest.

    Raises:
        PeerUnavailable: the harness did not finish; its last words are in the message.
        DiskFull: its results found no space.
    """
    plan = {
        "model": model,
        "base_url": f"{base_url.rstrip('/')}/completions",
        "tokenizer": str(tokenizer),
        "tasks": list(tasks),
        "limit": limit,
        "suites": [str(folder.resolve()) for folder in (SUITES, own_tasks) if folder],
        "concurrency": concurrency,
        "batch_size": batch_size,
        "maximum_length": maximum_length,
    }
    plan_file, log = work / "plan.json", work / "items.jsonl"
    if not _already_run(plan, plan_file, log):
        await _run(plan_file, log, api_key, offline, on_progress)
    return read_log(log)


def _already_run(plan: Mapping[str, object], plan_file: Path, log: Path) -> bool:
    """Whether `log` is the log of this plan; if not, the plan is written and the log removed."""
    text = json.dumps(plan, indent=1, sort_keys=True)
    if log.exists() and plan_file.exists() and plan_file.read_text() == text:
        return True
    plan_file.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    plan_file.write_text(text)
    return False


def read_log(log: Path) -> tuple[BenchmarkItem, ...]:
    """The items of a finished log, in the order of tasks and documents."""
    with log.open(encoding="utf-8") as lines:
        return tuple(BenchmarkItem(**json.loads(line)) for line in lines)


async def _run(
    plan: Path, log: Path, api_key: str, offline: bool, on_progress: OnProgress | None
) -> None:
    environment = {**os.environ, "OPENAI_API_KEY": api_key, "TOKENIZERS_PARALLELISM": "false"}
    ours = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(ours)
    if offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.evaluation.adapters.harness_process",
        str(plan),
        str(log),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        last_words = await _listen(process, on_progress)
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0 and says_disk_full(last_words):
        raise DiskFull("lm-evaluation-harness could not write its results")
    if status != 0:
        raise PeerUnavailable(
            f"lm-evaluation-harness ended with status {status}: {last_words}",
            mend="Check that serving answers /v1/completions with echo and logprobs.",
        )


async def _listen(process: asyncio.subprocess.Process, on_progress: OnProgress | None) -> str:
    assert process.stderr is not None  # asked for above
    tail = b""
    while chunk := await process.stderr.read(4096):
        tail = (tail + chunk)[-_TAIL_BYTES:]
        if on_progress is not None and (seen := _PROGRESS.findall(tail)):
            done, total = seen[-1]
            on_progress(int(done), int(total))
    return tail.decode(errors="replace").strip()[-1000:]

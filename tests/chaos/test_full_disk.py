"""A disk that fills under a whole run: all stays up, and the run goes on when there is space."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from contracts.subjects import PREFIX
from tests.chaos.havoc import (
    WORK,
    Following,
    Traffic,
    assert_done_once,
    outside,
    submit,
)
from tests.e2e.stack import TENANT, Stack, running_stack

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.req("P3"),
]

DISK_BYTES = 256 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """`folder` as a file system of its own, small enough to fill."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount the small disk that this test fills")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take every last page of `disk`."""
    ballast = disk / "ballast"
    handle = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(handle, b"\0" * 4096)
    except OSError:
        return ballast
    finally:
        os.close(handle)


async def news_that_says(stack: Stack, run: str, words: str) -> None:
    """Wait until progress of the run says `words`."""
    connection = await nats.connect(stack.nats_url)
    subscription = await connection.subscribe(f"{PREFIX}.progress.{TENANT}.{run}.>")
    async for news in subscription.messages:
        if words in json.loads(news.data)["message"]:
            break
    await connection.close()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    ballast = fill(disk)
    try:
        yield
    finally:
        ballast.unlink()


async def test_a_run_whose_artifacts_find_no_space_says_so_and_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with small_disk(home / "artifacts") as disk, running_stack(home) as stack:
        ref = submit(stack, tmp_path / "job", "no-space", max_steps=40, seed=3)
        with Traffic(stack, ref.run):
            async with outside(stack) as jetstream, asyncio.timeout(240):
                following = Following(jetstream, ref)
                await following.until_fact("training.started")
                with full(disk):
                    await news_that_says(stack, ref.run, "free space")
                await following.until_over()
        await assert_done_once(stack, ref)


async def test_a_platform_whose_whole_disk_was_full_goes_on_with_the_run(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, running_stack(disk / "home") as stack:
        ref = submit(stack, tmp_path / "job", "full-disk", max_steps=40, seed=3)
        pids = {service: stack.pid_of(service) for service in WORK}
        with Traffic(stack, ref.run):
            async with outside(stack) as jetstream, asyncio.timeout(240):
                following = Following(jetstream, ref)
                await following.until_fact("training.trained")
                with full(disk):
                    await asyncio.sleep(10)
                await following.until_over()
        await assert_done_once(stack, ref)
        assert {service: stack.pid_of(service) for service in WORK} == pids

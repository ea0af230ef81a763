"""A control group for one sandboxed run: a ceiling for all its processes together.

Resource limits hold for each process; a control group holds for the sum, and binds root as well.
Only a privileged parent can make one, in version 2 (one tree) or version 1 (one tree for each
controller). Where it cannot be made, the resource limits inside the sandbox stand alone.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.sandbox.limits import Limits

ROOT = Path("/sys/fs/cgroup")
_GRACE_S = 0.5


@contextmanager
def control_group(limits: Limits) -> Iterator[tuple[Path, ...]]:
    """The `cgroup.procs` files a process writes its id to; none where groups cannot be made.

    What is still in the group at the end of the block is killed.
    """
    folders = tuple(_made(limits))
    try:
        yield tuple(folder / "cgroup.procs" for folder in folders)
    finally:
        for folder in folders:
            _remove(folder)


def _made(limits: Limits) -> Iterator[Path]:
    name = f"sluice-sandbox-{uuid.uuid4().hex[:12]}"
    settings = {"pids": [("pids.max", limits.processes + 8)]}
    if (ROOT / "cgroup.controllers").exists():
        settings["memory"] = [("memory.max", limits.memory_bytes), ("memory.swap.max", 0)]
        folder = ROOT / name
        if _make(folder, [*settings["pids"], *settings["memory"]]):
            yield folder
        return
    settings["memory"] = [("memory.limit_in_bytes", limits.memory_bytes)]
    for controller, values in settings.items():
        folder = ROOT / controller / name
        if folder.parent.is_dir() and _make(folder, values):
            yield folder


def _make(folder: Path, values: list[tuple[str, int]]) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    try:
        for name, value in values:
            if (folder / name).exists() or name != "memory.swap.max":
                (folder / name).write_text(str(value))
    except OSError:
        folder.rmdir()
        return False
    return True


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _GRACE_S
    while True:
        with suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            folder.rmdir()
            return
        if time.monotonic() > deadline or not folder.exists():
            return
        time.sleep(0.005)

"""A trainer's hold on its machine: dies with its parent, alone in its work folder."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent` ends (Linux).

    kill -9 rather than SIGTERM: the parent's successor resumes from the checkpoint at once.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def lock_folder(folder: Path) -> int | None:
    """Hold `folder` until this process ends; None if another process holds it."""
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def available_memory_bytes() -> int:
    """What a new process can hold: free memory, or what the container's limit leaves of it."""
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def has_accelerator() -> bool:
    """Whether a driver offers a GPU (NVIDIA's or AMD's), told without loading torch."""
    return any(Path(node).exists() for node in _GPU_NODES)


def _cgroup(name: str) -> int | None:
    try:
        content = (Path("/sys/fs/cgroup") / name).read_text().strip()
    except OSError:
        return None
    return int(content) if content.isdigit() else None

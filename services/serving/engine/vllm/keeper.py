"""Run a program in a process group of its own, and end the whole group when its parent dies.

`python keeper.py PARENT_PID PROGRAM [ARGUMENT...]`. vLLM starts processes that outlive its server
if that is killed, so a leash on the server alone would leave gigabytes behind. Standard library
only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

STOP_WITHIN_S = 15.0
PR_SET_PDEATHSIG = 1


def kept(program: list[str]) -> list[str]:
    """The argv that runs `program` under a keeper of this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *program]


def main() -> int:
    """The program's exit code; its group is gone by then."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    child = subprocess.Popen(program, start_new_session=True)
    while child.poll() is None and not stopping and os.getppid() == parent:
        time.sleep(0.2)
    end(child)
    return child.returncode


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, and make it."""
    deadline = time.monotonic() + STOP_WITHIN_S
    _signalled(child.pid, signal.SIGTERM)
    while _signalled(child.pid, 0) and time.monotonic() < deadline:
        child.poll()  # a zombie is still one of the group
        time.sleep(0.1)
    _signalled(child.pid, signal.SIGKILL)
    child.wait()


def _signalled(group: int, kind: int) -> bool:
    """Send a signal (0 only looks); whether anybody of the group is left."""
    try:
        os.killpg(group, kind)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

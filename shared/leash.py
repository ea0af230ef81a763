"""Run a program that dies with its parent: `python leash.py PARENT_PID PROGRAM [ARGUMENT...]`.

The kernel sends SIGKILL to the program when its parent ends, however that ends, kill -9 included
(`prctl(2)`, PR_SET_PDEATHSIG; it survives `execve`). Elsewhere than on Linux the program runs
without the leash. Run by path with `-I -S`: standard library only, about 15 ms.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def leashed(program: list[str]) -> list[str]:
    """The argv that runs `program` on the leash of this process.

    The death that counts is that of the *thread* which starts it: start it from a thread that lives
    as long as the process does.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *program]


def hold(parent: int) -> None:
    """Put this process on the leash of `parent`, which started it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the leash was on
            sys.exit(1)


def main() -> None:
    """Put on the leash, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    hold(parent)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()

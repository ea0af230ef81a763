"""What vLLM starts ends with us, however we end."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from services.serving.engine.vllm import keeper

SERVER = "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
PARENT = f"""
import subprocess, sys
from services.serving.engine.vllm.keeper import kept
subprocess.Popen(kept([sys.executable, '-c', {SERVER!r}])).wait()
"""


def until(condition):
    for _ in range(300):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


def family(pid, count):
    """The processes below `pid`, once there are `count`."""

    def all_there():
        found = psutil.Process(pid).children(recursive=True)
        return found if len(found) == count else None

    return until(all_there)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_the_whole_group_ends_when_the_parent_is_killed(kind):
    parent = subprocess.Popen([sys.executable, "-c", PARENT])
    below = family(parent.pid, 3)  # keeper, server, and what the server started
    parent.send_signal(kind)
    parent.wait()
    until(lambda: not any(process.is_running() for process in below))


def test_the_group_ends_when_the_keeper_is_told_to():
    kept = subprocess.Popen(keeper.kept([sys.executable, "-c", SERVER]))
    below = family(kept.pid, 2)
    kept.terminate()
    kept.wait(20)
    assert not any(process.is_running() for process in below)


def test_the_keeper_ends_with_its_program_and_its_exit_code():
    kept = subprocess.Popen(keeper.kept([sys.executable, "-c", "import sys; sys.exit(7)"]))
    assert kept.wait(20) == 7

"""The trainer's report channel: JSON lines on the real standard output, never silent for long.

Libraries print. So file descriptor 1 is kept for reports alone, and everything else that is written
to standard output goes to standard error.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from types import TracebackType

from services.training.reports import Done, Failed, Step, Working

SILENCE_S = 2.0


def peak_memory_bytes() -> int:
    """The most memory this process has held: on the accelerator if it uses one, else resident."""
    torch = sys.modules.get("torch")  # heartbeats begin before it is imported
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Channel:
    """Writes reports, and a heartbeat whenever nothing was written for `SILENCE_S`."""

    def __init__(self, steps: int, *, speaks: bool = True) -> None:
        """`speaks` is False in all processes of a training but its first: they only say why not."""
        self._speaks = speaks
        self._steps = steps
        self._step = 0
        self._message = "starting"
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> Channel:
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._heart.join()

    @property
    def step(self) -> int:
        """The last step reported."""
        return self._step

    def working(self, message: str, step: int | None = None) -> None:
        """Name the work under way; heartbeats repeat it."""
        self._message = message
        self._step = self._step if step is None else step
        self._send(self._heartbeat())

    def send(self, report: Step | Done | Failed) -> None:
        """Write a report that is not a heartbeat."""
        if isinstance(report, Step):
            self._step = report.step
            self._message = f"training step {report.step + 1} of {report.steps}"
        self._send(report)

    def _heartbeat(self) -> Working:
        return Working(
            message=self._message,
            step=self._step,
            steps=self._steps,
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _send(self, report: Working | Step | Done | Failed) -> None:
        if not self._speaks and not isinstance(report, Failed):
            return
        with self._lock:
            self._out.write(report.model_dump_json() + "\n")
            self._last = time.monotonic()

    def _beat(self) -> None:
        while not self._closed.wait(SILENCE_S / 4):
            if time.monotonic() - self._last >= SILENCE_S:
                self._send(self._heartbeat())

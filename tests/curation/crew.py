"""What workers of the crew do in tests: in a module of its own, which they import."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.curation.crew import in_order
from services.curation.redaction import Span

ADDRESS = re.compile(r"[a-z0-9]+@[a-z]+\.org")


@dataclass(frozen=True)
class Squares:
    """Notes each piece in a folder when it begins; the worker of piece `lethal` dies."""

    folder: Path
    lethal: int = -1
    times: int = 0
    """How often it dies of it."""
    wait_s: float = 0.0

    def __call__(self, piece: int) -> int:
        (self.folder / f"{piece}-{os.getpid()}").touch()
        time.sleep(self.wait_s)
        if piece == self.lethal and len(list(self.folder.glob(f"{piece}-*"))) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece * piece


@dataclass(frozen=True)
class Deadly:
    """A detector of addresses; the process that sees `kill@me.org` dies while a file is there."""

    armed: Path

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        if any("kill@me.org" in text for text in texts) and self.armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            [Span(m.start(), m.end(), "EMAIL") for m in ADDRESS.finditer(text)] for text in texts
        ]


if __name__ == "__main__":
    for _ in in_order(Squares(Path(sys.argv[1]), wait_s=60), range(4), 2):
        pass

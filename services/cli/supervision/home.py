"""A home in use: one `sluice up` per home, by a lock the kernel releases with its holder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import PermanentError

ADDRESSES = "up.json"


class HomeInUse(PermanentError):
    """Another `sluice up` runs on this home."""


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the home. Raises HomeInUse."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise HomeInUse(
                f"{home} is in use by `sluice up` (pid {holder})",
                mend="stop that one, or choose another --home",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            (home / ADDRESSES).unlink(missing_ok=True)


def announce(home: Path, addresses: dict[str, object]) -> None:
    """Leave the addresses for other commands on this home."""
    part = home / f".{ADDRESSES}.part"
    part.write_text(json.dumps(addresses), encoding="utf-8")
    part.replace(home / ADDRESSES)

"""Read a folder that nobody vouches for: regular files only, bounded, without following links."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from contracts.base import Digest

MAXIMUM_FILES = 512
MAXIMUM_DEPTH = 4
MAXIMUM_FILE_BYTES = 8 << 30
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Scan:
    """Relative path → digest of every regular file, and why any other entry is refused."""

    files: dict[str, Digest]
    refused: dict[str, str]


def scan(folder: Path) -> Scan:
    """Walk `folder`. Raises OSError if it cannot be listed."""
    files: dict[str, Digest] = {}
    refused: dict[str, str] = {}
    pending = [(folder, "", 0)]
    while pending:
        place, prefix, depth = pending.pop()
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + entry.name
                if len(files) + len(refused) >= MAXIMUM_FILES:
                    refused["files"] = f"more than {MAXIMUM_FILES} files"
                    return Scan(files, refused)
                if entry.is_dir(follow_symlinks=False):
                    if depth == MAXIMUM_DEPTH:
                        refused[name] = "lies too deep"
                    else:
                        pending.append((Path(entry.path), name + "/", depth + 1))
                    continue
                try:
                    files[name] = _digest(Path(entry.path))
                except (OSError, ValueError) as error:
                    refused[name] = str(error)
    return Scan(files, refused)


def read_bounded(path: Path, limit: int) -> bytes:
    """A regular file's content.

    Raises:
        ValueError: it is no regular file, or larger than `limit` bytes.
        OSError: it cannot be read, or is a symbolic link.

    """
    with os.fdopen(_open(path, limit), "rb") as source:
        return source.read(limit)


def _open(path: Path, limit: int) -> int:
    if path.is_symlink():
        raise ValueError("is a symbolic link")
    # O_NONBLOCK: a FIFO put in a file's place must not make the verifier wait
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return fd
    os.close(fd)
    raise ValueError(
        f"is larger than {limit} bytes" if stat.S_ISREG(status.st_mode) else "is no regular file"
    )


def _digest(path: Path) -> Digest:
    sha = hashlib.sha256()
    with os.fdopen(_open(path, MAXIMUM_FILE_BYTES), "rb") as source:
        while chunk := source.read(_CHUNK):
            sha.update(chunk)
    return "sha256:" + sha.hexdigest()

"""Checkpoints that survive kill -9: a folder counts only once its seal is written.

The seal lists every file with its size and is written last, after the files are on disk. A folder
without a matching seal is what a killed trainer left behind; it is thrown away at the next start.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

KEEP = 2
_SEAL = "sealed.json"
_PREFIX = "checkpoint-"


def seal(folder: Path) -> None:
    """Declare `folder` complete, durably."""
    sizes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _sync(path)
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    part = folder / (_SEAL + ".part")
    part.write_text(json.dumps(sizes))
    _sync(part)
    part.replace(folder / _SEAL)
    _sync(folder)
    _sync(folder.parent)


def newest_sealed(root: Path) -> Path | None:
    """The complete checkpoint with the most steps."""
    return max((c for c in _checkpoints(root) if _is_sealed(c)), key=step_of, default=None)


def prune(root: Path, keep: int = KEEP) -> None:
    """Remove incomplete checkpoints, and all but the newest `keep` complete ones."""
    complete = sorted((c for c in _checkpoints(root) if _is_sealed(c)), key=step_of)
    for folder in set(_checkpoints(root)) - set(complete[-keep:]):
        shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    """The optimizer step a checkpoint was made after."""
    return int(folder.name.removeprefix(_PREFIX))


def _checkpoints(root: Path) -> list[Path]:
    return [p for p in root.glob(_PREFIX + "*") if p.name.removeprefix(_PREFIX).isdigit()]


def _is_sealed(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _SEAL).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

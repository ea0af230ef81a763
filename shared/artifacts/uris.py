"""Data URIs: what a job may name, and the pinned form everything after intake reads.

A job names data by path, `file://` or digest. Intake copies each into the artifact store and from
there on the run knows only `sha256:<64 hex>#<file name>`: later edits of the file change nothing,
and problems can still name the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contracts.base import Digest
from contracts.job import AdaptationJob
from shared.artifacts.store import ArtifactStore
from shared.errors import ArtifactMissing

_PINNED = re.compile(r"^(?P<digest>sha256:[0-9a-f]{64})(?:#(?P<name>[^/\s]{1,200}))?$")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Content and the name it came under."""

    digest: Digest
    name: str

    def __str__(self) -> str:
        return f"{self.digest}#{self.name}"

    @classmethod
    def named(cls, digest: Digest, path: Path) -> Pinned:
        """Content that lay at `path`."""
        return cls(digest, re.sub(r"[^\w.-]", "_", path.name))

    @classmethod
    def parse(cls, uri: str) -> Pinned:
        """Raises ValueError if `uri` is not pinned."""
        match = _PINNED.fullmatch(uri)
        if match is None:
            raise ValueError(f"{uri!r} is not sha256:<digest>[#name]")
        return cls(match["digest"], match["name"] or match["digest"][7:19])


def evaluation_sets(job: AdaptationJob) -> tuple[Digest, ...]:
    """The digests of the sets that a job is judged by, once intake has pinned them."""
    found = map(_PINNED.fullmatch, (job.evaluation.dev.uri, job.evaluation.heldout.uri))
    return tuple(match["digest"] for match in found if match)


_KERNELS = tuple(Path(folder) for folder in ("/proc", "/sys", "/dev"))
"""What lies there is no data: environments with secrets, devices without an end."""


def pin(
    store: ArtifactStore,
    uri: str,
    *,
    folder: Path | None = None,
    closed: Sequence[Path] = (),
) -> Pinned:
    """Put what `uri` names into the store.

    Relative paths are taken from `folder`; without one they are refused, as is what lies in a
    folder of `closed`, by whatever link it is named.

    Raises:
        ValueError: the URI is of no known kind, relative without a folder, or names something else
            than a regular file of an open folder.
        FileNotFoundError, IsADirectoryError, PermissionError: the file cannot be read.
        ArtifactMissing: a digest is not in the store.
    """
    if uri.startswith("sha256:"):
        pinned = Pinned.parse(uri)
        if not store.has(pinned.digest):
            raise ArtifactMissing(f"{pinned.digest} is not in the artifact store")
        return pinned
    parts = urlsplit(uri)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
    elif parts.scheme == "":
        path = Path(uri).expanduser()
        if not path.is_absolute():
            if folder is None:
                raise ValueError(f"{uri!r} is relative; publish an absolute file:// URI")
            path = folder / path
    else:
        raise ValueError(f"{parts.scheme}:// is not supported")
    real = path.resolve(strict=True)
    if any(real.is_relative_to(shut.resolve()) for shut in (*_KERNELS, *closed)):
        raise ValueError("it lies in a folder that no job may read")
    if not (real.is_file() or real.is_dir()):
        raise ValueError("it is no regular file")
    return Pinned.named(store.put_file(real), path)

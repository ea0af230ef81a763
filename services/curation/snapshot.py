"""The dataset as an immutable thing: canonical bytes, digests, a card and its readable form (C8).

The same rows give the same bytes on every machine: no clock, no path, sorted keys, one row a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rfc8785

from contracts.base import Digest, digest_of
from contracts.data import DatasetCard, Row

LIBRARIES = (
    "presidio-analyzer", "detect-secrets", "rensa", "pyarrow", "pydantic", "packaging",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset: its card, and where every file is that the card names."""

    card: DatasetCard
    files: dict[str, Path]

    @property
    def card_bytes(self) -> bytes:
        """RFC 8785 canonical JSON. Its digest is the dataset's identity."""
        return rfc8785.dumps(self.card.model_dump(mode="json", by_alias=True))

    @property
    def digest(self) -> Digest:
        return digest_of(self.card_bytes)


def row_bytes(row: Row) -> bytes:
    """One canonical JSON line, without its newline: sorted keys, defaults left out."""
    return json_line(row.model_dump(mode="json", exclude_defaults=True))


def rows_bytes(rows: Iterable[Row]) -> bytes:
    """Canonical JSON Lines."""
    return b"".join(row_bytes(row) + b"\n" for row in rows)


class OutputFile:
    """A file of the dataset, hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._sha = hashlib.sha256()

    def write(self, line: bytes) -> None:
        """Add one line."""
        for part in (line, b"\n"):
            self._file.write(part)
            self._sha.update(part)

    def close(self) -> Digest:
        """The file is complete; its digest."""
        self._file.close()
        return "sha256:" + self._sha.hexdigest()


def library_versions() -> dict[str, str]:
    """Library → installed version, of those that shape rows."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def json_line(value: Any) -> bytes:
    """One canonical JSON line, without its newline: sorted keys, no spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()

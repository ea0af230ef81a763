"""Shards of traced rows as Parquet: one file a shard, one Arrow row for each of ours.

Columns: `number`, `file`, `line`, `source`, `role`, `changes`, and the row itself as its canonical
JSON, which is what its digest is of. Pages carry checksums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.data import Row
from services.curation.rows import TracedRow
from services.curation.snapshot import row_bytes

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("line", pa.int64()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("role", pa.dictionary(pa.int32(), pa.string())),
        ("changes", pa.list_(pa.string())),
        ("row", pa.binary()),
    ]
)


def write_shard(path: Path, rows: Sequence[TracedRow]) -> None:
    """Write a shard, on disk and complete before it has its name."""
    table = pa.table(
        [
            [t.number for t in rows],
            pa.array([t.file for t in rows], pa.string()).dictionary_encode(),
            [t.line for t in rows],
            pa.array([t.source for t in rows], pa.string()).dictionary_encode(),
            pa.array([t.role for t in rows], pa.string()).dictionary_encode(),
            [t.changes for t in rows],
            [row_bytes(t.row) for t in rows],
        ],
        schema=SCHEMA,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as out:
        pq.write_table(table, out, compression="zstd", write_page_checksum=True)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


def read_shard(path: Path) -> Iterator[TracedRow]:
    """The rows of a shard. Raises OSError where a page does not match its checksum."""
    table: Any = pq.read_table(path, page_checksum_verification=True)
    for number, file, line, source, role, changes, row in zip(
        *(column.to_pylist() for column in table.columns), strict=True
    ):
        yield TracedRow(
            row=Row.model_validate_json(row),
            file=file,
            line=line,
            source=source,
            role=role,
            changes=tuple(changes),
            number=number,
        )

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.data import Row, parse_row
from services.curation import pipeline
from services.curation.pipeline import Curated
from services.curation.reading import SourceFile

_FOLDERS: list[TemporaryDirectory[str]] = []

TASKS = (
    ("area_of_triangle", "Find the area of a triangle with base {a} cm and height {b} cm."),
    ("book_flight", "Book a flight from Oslo to Lisbon on 2024-03-{a:02} for {b} passengers."),
    ("convert", "Convert {a} USD to EUR and round the answer to {b} decimals."),
    ("loan_payment", "What is the payment on a {a},500 dollar loan over {b} years at 4.5%?"),
    ("weather", "Show the weather in Boston for the next {a} days in at most {b} lines."),
)  # fmt: skip


def row(identity: str, request: str, target: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "messages": [{"role": "user", "content": request}],
        "target": target if target is not None else json.dumps({"name": "f", "arguments": {}}),
        **more,
    }


def clean_rows(count: int, prefix: str = "r", start: int = 1) -> list[dict[str, Any]]:
    rows = []
    for i in range(start, start + count):
        name, text = TASKS[i % len(TASKS)]
        target = json.dumps({"name": name, "arguments": {"a": i, "b": i + 3}})
        rows.append(row(f"{prefix}{i}", text.format(a=i, b=i + 3), target))
    return rows


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def training(rows: list[dict[str, Any]] | bytes, name: str = "train.jsonl") -> SourceFile:
    return SourceFile(file=name, content=rows if isinstance(rows, bytes) else jsonl(rows))


def held_out(rows: list[dict[str, Any]], name: str = "heldout.jsonl") -> SourceFile:
    content = [{**r, "expected": r.get("expected", {"f": {}})} for r in rows]
    return SourceFile(file=name, content=jsonl(content), licence="Apache-2.0")


def curate(*given: Any, **more: Any) -> Any:
    """`pipeline.curate` in a folder that lasts as long as the test's process."""
    _FOLDERS.append(TemporaryDirectory(prefix="sluice-curation-"))
    return pipeline.curate(*given, Path(_FOLDERS[-1].name), **more)


def content(done: Curated, name: str) -> bytes:
    """A file of the dataset."""
    return done.snapshot.files[name].read_bytes()


def contents(done: Curated) -> dict[str, bytes]:
    """All of them."""
    return {name: path.read_bytes() for name, path in done.snapshot.files.items()}


def kept(done: Curated, split: str = "train") -> list[Row]:
    """The rows of a split."""
    return [parse_row(line) for line in content(done, f"{split}.jsonl").splitlines()]

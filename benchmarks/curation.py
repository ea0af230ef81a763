"""Curation against datatrove on one corpus, in one run: rows per second at what quality.

`python benchmarks/curation.py --peer PYTHON`, where PYTHON is an interpreter with
`datatrove[processing]`, `orjson` and `spacy` (a virtual environment of its own: its pins are not
ours). The corpus has planted near duplicates (a tenth of the rows, three words of 120 changed) and
e-mail addresses (in a third). Both sides run in one process, warmed on a tenth of the corpus; the
peer's settings are its MinHash defaults, 14 buckets of 8 hashes over 5-grams of words.

`python benchmarks/curation.py --memory 20 200` gives the peak of the whole pipeline instead, for
corpora of 20 and 200 MiB; each is made, curated and measured in a process of its own. With
`--processes 1 2` each is done once by one process and once with two workers, in turn.

A busy neighbour slows both sides, and not always alike; the rows for a second of processor do not
see it. *Removed* is the share of planted duplicates that went, *lost* the rows that went and were
none, *left* the addresses still there. Peak is the resident size of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

WORDS = 120
CHANGED = 3
THRESHOLD = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents in a folder, and what was planted in them."""

    folder: Path
    rows: int
    duplicates: int
    addresses: int


def corpus(folder: Path, rows: int) -> Corpus:
    """The same documents every time."""
    draw = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(3, 9))) for _ in range(5000)]
    folder.mkdir(parents=True)
    originals: list[list[str]] = []
    duplicates = addresses = 0
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for number in range(rows):
            copied = number % 10 == 9
            text = list(draw.choice(originals)) if copied else draw.choices(words, k=WORDS)
            if copied:
                duplicates += 1
                for place in draw.sample(range(WORDS), CHANGED):
                    text[place] = draw.choice(words)
            elif number % 3 == 0:
                addresses += 1
                text[WORDS // 2] = f"{draw.choice(words)}.{draw.choice(words)}@kite-mail.org"
            if not copied:
                originals.append(text)
            name = f"{'copy' if copied else 'row'}-{number}"
            out.write(json.dumps({"id": name, "text": " ".join(text)}) + "\n")
    return Corpus(folder=folder, rows=rows, duplicates=duplicates, addresses=addresses)


def ours(source: Path, out: Path, *, redact: bool) -> None:
    """Our stages over the corpus as the pipeline runs them: shards on disk, each committed."""
    from contracts.data import Row
    from services.curation.adapters.pii import PiiDetector
    from services.curation.checking import SHARD_ROWS
    from services.curation.duplicates import exact_duplicates, near_duplicates
    from services.curation.firsts import Firsts
    from services.curation.redaction import Audit, redaction
    from services.curation.refusals import RefusalLog
    from services.curation.rows import TracedRow
    from services.curation.workbench import Workbench
    from shared.similarity.minhash import NearDuplicates

    def rows():
        with (source / "rows.jsonl").open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                given = json.loads(line)
                turn = ({"role": "user", "content": given["text"]},)
                row = Row(id=given["id"], messages=turn, target="")
                yield TracedRow(
                    row, "rows.jsonl", number, "sha256:" + "0" * 64, "positive", number=number
                )

    out.mkdir(parents=True, exist_ok=True)
    with Workbench(out / "work", "benchmark") as bench, (out / "kept.jsonl").open("w") as kept:
        audit, near = Audit(), NearDuplicates(THRESHOLD, bench.db)
        stages = [redaction(PiiDetector(), audit)] if redact else []
        stages += [exact_duplicates(Firsts(bench.db, "contents")), near_duplicates(THRESHOLD, near)]
        stream, shard = rows(), 0
        while batch := list(islice(stream, SHARD_ROWS)):
            bench.run("all", shard, stages, iter(batch), audit, RefusalLog())
            for traced in bench.rows("all", shard):
                text = traced.row.messages[0].content
                kept.write(json.dumps({"id": traced.row.id, "text": text}) + "\n")
            shard += 1


def peer(source: Path, out: Path, *, redact: bool) -> None:
    """The same with datatrove."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)

    def run(name: str, *steps: object, tasks: int = 1) -> None:
        LocalPipelineExecutor(
            pipeline=list(steps), tasks=tasks, workers=1, logging_dir=str(out / "logs" / name)
        ).run()

    given = source
    if redact:
        run("pii", JsonlReader(str(given)), PIIFormatter(),
            JsonlWriter(str(out / "redacted"), compression=None))  # fmt: skip
        given = out / "redacted"
    sig, buckets, remove = (str(out / name) for name in ("signatures", "buckets", "remove"))
    run("signatures", JsonlReader(str(given)), MinhashDedupSignature(sig, config=config))
    run("buckets", MinhashDedupBuckets(sig, buckets, config=config), tasks=config.num_buckets)
    run("cluster", MinhashDedupCluster(buckets, remove, config=config))
    run("filter", JsonlReader(str(given)), MinhashDedupFilter(remove),
        JsonlWriter(str(out / "kept"), output_filename="kept.jsonl", compression=None))  # fmt: skip


def work(side: str, folder: Path, out: Path, *, redact: bool) -> None:
    """One side, warmed up and then timed. One JSON object on the last line."""
    run = ours if side == "ours" else peer
    run(folder / "warm", out / "warm", redact=redact)
    began, used = time.perf_counter(), _cpu_s()
    run(folder / "full", out / "full", redact=redact)
    took, used = time.perf_counter() - began, _cpu_s() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({"seconds": took, "cpu_s": used, "peak_mib": peak}))


def _cpu_s() -> float:
    """Seconds of processor that this process and its children have used."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def measure(
    side: str, python: str, folder: Path, whole: Corpus, *, redact: bool
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as out:
        command = [python, __file__, "--side", side, "--folder", str(folder), "--out", out]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            [*command, *(["--redact"] if redact else [])],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        [kept] = Path(out).glob("full/**/kept.jsonl")
        rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    found = json.loads(done.stdout.splitlines()[-1])
    ids = [row["id"] for row in rows]
    copies = sum(name.startswith("copy") for name in ids)
    return {
        "rows_per_s": whole.rows / found["seconds"],
        "rows_per_cpu_s": whole.rows / found["cpu_s"],
        "peak_mib": found["peak_mib"],
        "removed": 1 - copies / whole.duplicates,
        "lost": whole.rows - whole.duplicates - (len(ids) - copies),
        "left": sum("@kite-mail.org" in row["text"] for row in rows),
    }


def memory(folder: Path, mebibytes: float, processes: int) -> dict[str, Any]:
    """The whole pipeline, every stage with the real detector, over a corpus of a size."""
    command = [sys.executable, "-m", "tests.curation.streaming", str(folder), str(mebibytes)]
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*command, "--detector", "real", "--processes", str(processes)],
        check=True, capture_output=True, text=True,
        env=environment, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    rows = found["stages"]["contamination"][0]
    work = sum(path.stat().st_size for path in (folder / "work").rglob("*") if path.is_file())
    return {"rows": rows, "disk_mib": work / (1 << 20), "rows_per_s": rows / found["seconds"],
            "rows_per_cpu_s": rows / found["cpu_s"], "digest": found["dataset"],
            **{name: found[name] for name in ("peak_mib", "worker_mib")}}  # fmt: skip


def memories(sizes: list[float], processes: list[int]) -> None:
    """Print what each size of corpus took."""
    print(
        "| corpus MiB | processes | rows | peak MiB | of a worker | on disk MiB | rows/s |"
        " rows for a second of processor | dataset |\n|---|---|---|---|---|---|---|---|---|"
    )
    for size in sizes:
        for count in processes:
            with tempfile.TemporaryDirectory() as made:
                found = memory(Path(made) / "corpus", size, count)
            worker = f"{found['worker_mib']:.0f}" if count > 1 else ""
            figures = (
                f"{size:g}", f"{count}", f"{found['rows']:,}", f"{found['peak_mib']:.0f}", worker,
                f"{found['disk_mib']:.0f}", f"{found['rows_per_s']:.0f}",
                f"{found['rows_per_cpu_s']:.0f}", found["digest"][7:15],
            )  # fmt: skip
            print(f"| {' | '.join(figures)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", help="an interpreter with datatrove; without it, ours alone")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--redact", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--memory", type=float, nargs="+", metavar="MIB", help="instead: the peak for these sizes"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="with --memory")
    given = parser.parse_args()
    if given.memory:
        memories(given.memory, given.processes)
        return 0
    if given.side:
        work(given.side, given.folder, given.out, redact=given.redact)
        return 0
    sides = [("ours", sys.executable)] + ([("peer", given.peer)] if given.peer else [])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        corpus(folder / "warm", given.rows // 10)
        whole = corpus(folder / "full", given.rows)
        print(f"{whole.rows} rows, {whole.duplicates} duplicates, {whole.addresses} addresses\n")
        print("| work | side | rows/s (smallest .. largest) | rows for a second of processor | "
              "peak MiB | removed | lost | left |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        for redact, name in ((False, "duplicates"), (True, "redaction and duplicates")):
            runs: dict[str, list[dict[str, float]]] = {side: [] for side, _ in sides}
            for _ in range(given.repeats):  # in turn, so that a busy neighbour hits both
                for side, python in sides:
                    runs[side].append(measure(side, python, folder, whole, redact=redact))
            for side, found in runs.items():
                rates = [run["rows_per_s"] for run in found]
                spread = f"{median(rates):,.0f} ({min(rates):,.0f} .. {max(rates):,.0f})"
                last = found[-1]
                busy = median(run["rows_per_cpu_s"] for run in found)
                print(f"| {name} | {side} | {spread} | {busy:,.0f} | {last['peak_mib']:.0f} | "
                      f"{last['removed']:.1%} | {last['lost']:.0f} | {last['left']:.0f} |",
                      flush=True)  # fmt: skip
            if given.peer:
                said = []
                for what in ("rows_per_s", "rows_per_cpu_s"):
                    pairs = zip(runs["ours"], runs["peer"], strict=True)
                    ratios = [one[what] / other[what] for one, other in pairs]
                    said.append(f"{median(ratios):.1f} × ({min(ratios):.1f} .. {max(ratios):.1f})")
                print(f"| {name} | ours over peer | {said[0]} | {said[1]} | | | | |",
                      flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A corpus of any size, curated in this process; its peak of resident memory, in MiB, as JSON.

`python -m tests.curation.streaming FOLDER MEBIBYTES [--detector real] [--processes N]`. The
detector is a pattern by default, so that the time goes into the stages whose memory could grow.
After SIGKILL a second call shows that nothing finished is done again: `texts` counts what this
process looked at.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.job import AdaptationJob
from services.curation import checking, workbench
from services.curation.adapters.pii import PiiDetector
from services.curation.pipeline import Advance, Curated, curate
from services.curation.reading import SourceFile
from services.curation.redaction import Span
from tests.curation.samples import held_out, row

JOB: dict[str, Any] = {
    "schema": "sluice.job/v1", "name": "j", "tenant": "acme", "task_namespace": "calls",
    "base": {"model": "m"},
    "behaviour": {"description": "d", "scorer": "tool_call", "target": 0.9},
    "data": [{"uri": "rows.jsonl", "licence": "MIT", "provenance": {"source": "made up"}}],
    "evaluation": {name: {"uri": "e", "licence": "MIT"} for name in ("dev", "heldout")},
    "curation": {"near_duplicate_threshold": 0.8},
    "rollout": {"deployment": "d"},
}  # fmt: skip
SMALL_MIB = 64
LEAKED = "Find the leaked item of the set, the kraken of the harbour"


class Addresses:
    """A detector that costs nothing and remembers nothing."""

    def __init__(self) -> None:
        self.texts = 0

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        self.texts += len(texts)
        found = [re.finditer(r"[a-z]+@[a-z]+\.org", text) for text in texts]
        return [[Span(m.start(), m.end(), "EMAIL") for m in each] for each in found]


def corpus(path: Path, mebibytes: float) -> SourceFile:
    """Rows of 2 kB: a tenth are near duplicates, some hold an address, one in a thousand leaks."""
    draw = random.Random(11)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(4, 10))) for _ in range(20_000)]
    number, last = 0, draw.choices(words, k=240)
    with path.open("w", encoding="utf-8") as out:
        while out.tell() < mebibytes * (1 << 20):
            number += 1
            text = list(last) if number % 10 == 0 else draw.choices(words, k=240)
            if number % 10 == 0:
                text[7] = "changed"
            if number % 7 == 0:
                text[20] = f"{words[number % 999]}@{words[3]}.org"
            request = LEAKED if number % 1000 == 0 else " ".join(text)
            out.write(json.dumps(row(f"r{number}", request, f"answer {words[number % 97]}")) + "\n")
            last = text
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(file="rows.jsonl", path=path, digest=digest)


def cpu_s() -> float:
    """Seconds of processor that this process and its ended children have used."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def main() -> int:
    folder, mebibytes = Path(sys.argv[1]), float(sys.argv[2])
    source = corpus(folder / "rows.jsonl", mebibytes)
    light = Addresses()
    detector = PiiDetector() if "real" in sys.argv else light
    if detector is light and mebibytes < SMALL_MIB:  # it fills a small shard and a small cache
        checking.SHARD_BYTES, workbench.CACHE_KIB = 1 << 20, 4 << 10

    processes = int(sys.argv[-1]) if "--processes" in sys.argv else 1
    began, used = time.perf_counter(), cpu_s()

    def tell(now: Advance) -> None:
        print(json.dumps({"leg": now.leg, "done": now.done, "of": now.shards}), flush=True)

    done = curate(
        AdaptationJob.model_validate(JOB),
        [source],
        {"heldout": held_out([row("h", LEAKED)])},
        detector,
        folder / "work",
        processes=processes,
        on_advance=tell,
    )
    assert isinstance(done, Curated)
    peak, worker = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    found = {
        "peak_mib": peak,
        "worker_mib": worker,
        "seconds": time.perf_counter() - began,
        "cpu_s": cpu_s() - used,
        "texts": light.texts,
        "dataset": done.snapshot.digest,
        "stages": {s.stage: [s.rows_in, s.rows_out] for s in done.snapshot.card.stages},
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

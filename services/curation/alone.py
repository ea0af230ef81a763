"""Curation without a run: a pinned job on standard input, a dataset in a folder.

`python -m services.curation.alone OUT`; `sluice data curate` starts it. One JSON object on standard
output says what came of it. Exit code: 0 a dataset, 3 halted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from contracts.curation import DatasetCurated
from contracts.data import DatasetCard
from contracts.job import AdaptationJob
from contracts.run import Run
from contracts.subjects import RunRef
from services.curation.adapters.pii import PiiDetector
from services.curation.card import markdown
from services.curation.desk import Desk, Next
from services.curation.settings import CurationSettings
from shared.artifacts import ArtifactStore
from shared.settings import Settings

HALTED = 3


def curate_alone(
    job: AdaptationJob, artifacts: ArtifactStore, out: Path, work: Path, processes: int = 1
) -> dict[str, Any]:
    """Curate a pinned job into the folder `out`; nothing is synthesized.

    Killed and called again, it goes on with what is under `work`.

    Raises:
        ArtifactMissing, ArtifactCorrupt: the store no longer has what was pinned.
    """
    plain = job.model_copy(update={"synthesis": None})
    outcome = Desk(artifacts, PiiDetector(), work, processes).curate(
        Run(ref=RunRef(job.tenant, job.name), job=plain)
    )
    if isinstance(outcome, DatasetCurated):
        return _written(outcome, artifacts, out)
    return _halted(outcome)


def _written(curated: DatasetCurated, artifacts: ArtifactStore, out: Path) -> dict[str, Any]:
    content = artifacts.get(curated.card)
    card = DatasetCard.model_validate_json(content)
    out.mkdir(parents=True, exist_ok=True)
    for name, digest in card.files.items():
        artifacts.fetch(digest, out / name)
    (out / "card.json").write_bytes(content)
    (out / "card.md").write_text(markdown(card), encoding="utf-8")
    return {
        "outcome": "curated",
        "dataset": curated.card,
        "folder": str(out),
        "rows": card.splits,
        "stages": [stage.model_dump(mode="json") for stage in card.stages],
        "warnings": list(card.warnings),
    }


def _halted(outcome: Next) -> dict[str, Any]:
    body = outcome.model_dump(mode="json")
    return {"outcome": outcome.fact, "reason": body.get("reason", "agreement"),
            "problems": body.get("problems", [])}  # fmt: skip


def main() -> int:
    job = AdaptationJob.model_validate_json(sys.stdin.buffer.read())
    settings = Settings()
    artifacts = ArtifactStore(settings.artifacts_url)
    workers = CurationSettings().workers
    found = curate_alone(job, artifacts, Path(sys.argv[1]), settings.home / "curation", workers)
    print(json.dumps(found, ensure_ascii=False))
    return 0 if found["outcome"] == "curated" else HALTED


if __name__ == "__main__":
    raise SystemExit(main())

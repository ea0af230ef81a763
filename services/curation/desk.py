"""The curation desk: fetch a run's rows from the store, curate them, put the snapshot back.

Where the job asks for synthetic rows the desk curates twice: first the job's own rows, so that only
licensed, redacted, de-duplicated seeds ever reach a teacher, then everything together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from contracts.base import digest_of
from contracts.curation import (
    CurationHalted,
    DatasetCurated,
    RecalibrationRequired,
    SynthesisRequested,
)
from contracts.job import AdaptationJob
from contracts.run import Run
from services.curation.assembly import Curated
from services.curation.contrast import contrast_sources
from services.curation.pipeline import Advance, Halted, curate, synthetic_source
from services.curation.reading import SourceFile
from services.curation.redaction import Detector
from services.curation.workbench import forget
from shared.artifacts import ArtifactStore, Pinned, TrainingStore, evaluation_sets
from shared.similarity.adapters.minilm import MiniLm
from shared.similarity.meaning import Embedder

Next = DatasetCurated | SynthesisRequested | CurationHalted | RecalibrationRequired


def embedder_for(job: AdaptationJob) -> Embedder | None:
    """The packaged embedding model, where the job compares by meaning. Raises Misconfigured."""
    policy = job.curation
    wanted = policy.semantic_threshold is not None or policy.paraphrase_threshold is not None
    return MiniLm() if wanted else None


class Desk:
    """Curates runs."""

    def __init__(
        self, artifacts: ArtifactStore, detector: Detector, work: Path, processes: int = 1
    ) -> None:
        """`work` holds a folder for every curation that is under way; `processes` do it."""
        self._artifacts = artifacts
        self._detector = detector
        self._work = work
        self._processes = processes

    def curate(self, run: Run, on_advance: Callable[[Advance], None] = lambda _: None) -> Next:
        """The next fact of `run`. Deterministic: the same run gives the same digests.

        A call that was killed is taken up where its last shard was committed, and so is one that
        `on_advance` ended by raising.

        Raises:
            ArtifactMissing, ArtifactCorrupt: the store no longer has what intake pinned.
            EvaluationWithheld: a file of the dataset is an evaluation set of the tenant.
            TransientError: another process curates this run.
        """
        job = run.job
        if job is None:
            raise ValueError(f"run {run.ref} has no job")
        forget(self._work)
        store = self._artifacts.for_training(run.ref.tenant, evaluation_sets(job))
        folder = self._folder(run)
        sources = [self._source(job, index, folder) for index in range(len(job.data))]
        sources += contrast_sources(job.curation.contrast_pairs)
        if run.synthesized is not None:
            content = self._artifacts.get(run.synthesized.rows)
            sources.append(synthetic_source(job, content, taught=run.asked_teacher))
        outcome = curate(
            job,
            sources,
            {
                "dev": self._pinned(job.evaluation.dev.uri),
                "heldout": self._pinned(job.evaluation.heldout.uri),
            },
            self._detector,
            folder,
            annotations=self._annotations(job),
            embedder=embedder_for(job),
            notes=() if run.synthesized is None else run.synthesized.alarms,
            taught=run.synthesized is not None and run.asked_teacher is not None,
            processes=self._processes,
            on_advance=on_advance,
        )
        found = self._fact(run, job, outcome, store)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _fact(
        self,
        run: Run,
        job: AdaptationJob,
        outcome: Curated | Halted | RecalibrationRequired,
        store: TrainingStore,
    ) -> Next:
        if isinstance(outcome, RecalibrationRequired):
            return outcome
        if isinstance(outcome, Halted):
            return CurationHalted(reason=outcome.reason, problems=outcome.problems)
        if run.synthesized is None and (wish := self._wish(run, job, outcome, store)) is not None:
            return wish
        return self._keep(outcome, store)

    def _wish(
        self, run: Run, job: AdaptationJob, outcome: Curated, store: TrainingStore
    ) -> SynthesisRequested | None:
        """The rows to ask for, where the job or its distillation wants any."""
        if outcome.seeds is None:
            return None
        if (taught := run.asked_teacher) is not None:
            with outcome.seeds.open("rb") as lines:
                count = sum(1 for _ in lines) * taught.answers_per_request
        else:
            count = job.synthesis.rows if job.synthesis else 0
        if not count:
            return None
        return SynthesisRequested(seeds=store.put_file(outcome.seeds), rows=count)

    def _keep(self, curated: Curated, store: TrainingStore) -> DatasetCurated:
        snapshot = curated.snapshot
        stored = {name: store.put_file(path) for name, path in snapshot.files.items()}
        store.put(curated.card_markdown.encode())
        return DatasetCurated(
            card=store.put(snapshot.card_bytes),
            train=stored["train.jsonl"],
            validation=stored.get("validation.jsonl"),
            rows=snapshot.card.splits,
        )

    def _folder(self, run: Run) -> Path:
        asked = f"{run.ref}\n{run.job}\n{run.synthesized}"
        return self._work / digest_of(asked.encode()).removeprefix("sha256:")[:32]

    def _source(self, job: AdaptationJob, index: int, folder: Path) -> SourceFile:
        described = job.data[index]
        pinned = Pinned.parse(described.uri)
        path = folder / "sources" / pinned.digest.removeprefix("sha256:")
        if not path.exists():
            self._artifacts.fetch(pinned.digest, path)
        return SourceFile(
            file=pinned.name,
            path=path,
            digest=pinned.digest,
            role=described.role,
            licence=described.licence,
            provenance=described.provenance.source,
        )

    def _annotations(self, job: AdaptationJob) -> SourceFile | None:
        uri = job.curation.annotations
        return None if uri is None else self._pinned(uri)

    def _pinned(self, uri: str) -> SourceFile:
        pinned = Pinned.parse(uri)
        return SourceFile(file=pinned.name, content=self._artifacts.get(pinned.digest))

"""The curation desk: fetch a run's rows from the store, curate them, put the snapshot back.

Where the job asks for synthetic rows the desk curates twice: first the job's own rows, so that only
licensed, redacted, de-duplicated seeds ever reach a teacher, then everything together.
"""

from __future__ import annotations

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
from services.curation.pipeline import Halted, curate, synthetic_source
from services.curation.reading import SourceFile
from services.curation.redaction import Detector
from shared.artifacts import ArtifactStore, Pinned
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

    def __init__(self, artifacts: ArtifactStore, detector: Detector) -> None:
        self._artifacts = artifacts
        self._detector = detector

    def curate(self, run: Run) -> Next:
        """The next fact of `run`. Deterministic: the same run gives the same digests.

        Raises:
            ArtifactMissing, ArtifactCorrupt: the store no longer has what intake pinned.
        """
        job = run.job
        if job is None:
            raise ValueError(f"run {run.ref} has no job")
        sources = [self._source(job, index) for index in range(len(job.data))]
        sources += contrast_sources(job.curation.contrast_pairs)
        if run.synthesized is not None:
            content = self._artifacts.get(run.synthesized.rows)
            sources.append(synthetic_source(job, content))
        outcome = curate(
            job,
            sources,
            {
                "dev": self._pinned(job.evaluation.dev.uri),
                "heldout": self._pinned(job.evaluation.heldout.uri),
            },
            self._detector,
            annotations=self._annotations(job),
            embedder=embedder_for(job),
            notes=() if run.synthesized is None else run.synthesized.alarms,
        )
        if isinstance(outcome, RecalibrationRequired):
            return outcome
        if isinstance(outcome, Halted):
            return CurationHalted(reason=outcome.reason, problems=outcome.problems)
        if job.synthesis is not None and run.synthesized is None:
            seeds = self._artifacts.put(outcome.seeds)
            return SynthesisRequested(seeds=seeds, rows=job.synthesis.rows)
        return self._keep(outcome)

    def _keep(self, curated: Curated) -> DatasetCurated:
        snapshot = curated.snapshot
        stored = {name: self._artifacts.put(content) for name, content in snapshot.files.items()}
        self._artifacts.put(curated.card_markdown.encode())
        return DatasetCurated(
            card=self._artifacts.put(snapshot.card_bytes),
            train=stored["train.jsonl"],
            validation=stored.get("validation.jsonl"),
            rows=snapshot.card.splits,
        )

    def _source(self, job: AdaptationJob, index: int) -> SourceFile:
        described = job.data[index]
        pinned = Pinned.parse(described.uri)
        return SourceFile(
            file=pinned.name,
            content=self._artifacts.get(pinned.digest),
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

"""Curation as one function: governed sources in, a dataset snapshot or a named halt out.

Order matters. Licences come first, before a row is looked at. The contamination sweep and the
volatility check read rows as written; redaction follows, and duplicates after it, because two rows
that differed only in whose e-mail they held are one row afterwards. Label noise is looked for while
near duplicates are still there: they are what contradicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from contracts.base import Problem
from contracts.curation import RecalibrationRequired
from contracts.data import Annotation, Row
from contracts.job import AdaptationJob
from services.curation.assembly import Account, Curated, assemble
from services.curation.contamination import contamination_sweep
from services.curation.duplicates import exact_duplicates, near_duplicates
from services.curation.licences import PROPRIETARY, licence_problem, row_problems, source_problems
from services.curation.meaning import paraphrase_sweep, semantic_duplicates
from services.curation.noise import noise
from services.curation.private import WithPrivateTerms
from services.curation.raters import own_annotations, recalibration, settle
from services.curation.reading import SourceFile, read_rows, summarised
from services.curation.redaction import Audit, Detector, redaction
from services.curation.refusals import RefusalLog, refusal_stage
from services.curation.rehearsal import rehearsal
from services.curation.rows import Stage, Tally, TracedRow, through
from services.curation.tools import tool_schemas
from services.curation.volatility import refusals
from services.curation.withholding import withheld
from shared.annotations import Ballot, ballots, measured_lines, read_annotations
from shared.errors import InvalidInput, Misconfigured
from shared.similarity.meaning import Embedder

HaltReason = Literal["licence", "unreadable", "too_few_rows", "volatile_facts"]


@dataclass(frozen=True, slots=True)
class Halted:
    """The data must not be trained on as it is."""

    reason: HaltReason
    problems: tuple[Problem, ...]


def synthetic_source(job: AdaptationJob, content: bytes) -> SourceFile:
    """Rows synthesized from the job's positive data, under the licences of that data."""
    licences = sorted({s.licence for s in job.data if s.role == "positive"})
    own = [licence for licence in licences if licence.startswith(PROPRIETARY)]
    joined = " AND ".join(f"({x})" if " " in x and len(licences) > 1 else x for x in licences)
    return SourceFile(
        file="synthetic.jsonl",
        content=content,
        licence=own[0] if own else joined,
        provenance="synthesized from the curated positive rows; each row names its origin",
    )


def curate(
    job: AdaptationJob,
    sources: Sequence[SourceFile],
    evaluation: Mapping[str, SourceFile],
    detector: Detector,
    *,
    annotations: SourceFile | None = None,
    embedder: Embedder | None = None,
    notes: Sequence[str] = (),
    minimum_rows: int = 1,
) -> Curated | Halted | RecalibrationRequired:
    """Run every stage.

    Args:
        job: its policies decide; `job.data[i]` describes `sources[i]`. Sources beyond `job.data`
            (synthetic rows, contrast pairs) are held to the same licence rule by their own fields.
        sources: the training files.
        evaluation: set name (`dev`, `heldout`) → file; training rows that overlap one are dropped.
        detector: finds personal data and secrets.
        annotations: labels of raters, besides those that rows carry themselves.
        embedder: compares by meaning, where the job gives a threshold for it.
        notes: what synthesis warns of, for the card.
        minimum_rows: fewer rows than this after all stages halt with `too_few_rows`.

    """
    blocked = source_problems(job) + _extra_source_problems(job, sources)
    if blocked:
        return Halted("licence", summarised(blocked, "sources"))
    problems: list[Problem] = []
    held = {
        name: [t.row for t in read_rows(file, "expected", problems)]
        for name, file in evaluation.items()
    }
    rows = list(_read_all(sources, problems))
    labelled = _annotations(annotations, problems)
    if problems:
        return Halted("unreadable", summarised(problems, "unreadable rows"))
    blocked = row_problems(rows, job)
    if blocked:
        return Halted("licence", summarised(blocked, "rows"))
    volatile = refusals(rows)
    if volatile:
        return Halted("volatile_facts", summarised(volatile, "volatile rows"))
    labels = ballots([*labelled, *own_annotations(rows)])
    agreed = measured_lines(labels)
    divided = recalibration(agreed, labels, job.curation.minimum_kappa)
    if divided:
        return divided
    if job.curation.private_terms:
        detector = WithPrivateTerms(detector, job.curation.private_terms)
    audit, refused = Audit(), RefusalLog()
    stream, tallies = through(_stages(job, held, detector, audit, labels, refused, embedder), rows)
    kept = list(stream)
    if len(kept) < minimum_rows:
        return Halted("too_few_rows", (_too_few(len(rows), len(kept), minimum_rows, tallies),))
    return assemble(
        Account(
            job=job,
            sources=tuple(sources),
            rows=Counter((t.file, t.source) for t in rows),
            tallies=tuple(tallies),
            audit=audit,
            refusals=refused,
            evaluation=tuple(held),
            agreement=agreed,
            embedder=embedder.name if embedder else None,
            notes=tuple(f"synthesis: {note}" for note in notes),
        ),
        kept,
    )


def _stages(
    job: AdaptationJob,
    held: Mapping[str, Sequence[Row]],
    detector: Detector,
    audit: Audit,
    labels: Mapping[str, Ballot],
    refused: RefusalLog,
    embedder: Embedder | None,
) -> list[Stage]:
    policy = job.curation
    return [
        *([withheld(policy.withheld_rows)] if policy.withheld_rows else []),
        *([settle(labels, policy.refused_labels)] if labels else []),
        contamination_sweep(held),
        *_by_meaning(embedder, policy.paraphrase_threshold, partial(paraphrase_sweep, held)),
        redaction(detector, audit),
        exact_duplicates(),
        tool_schemas(policy.noisy_rows),
        refusal_stage(policy, refused),
        noise(policy.noisy_rows),
        near_duplicates(policy.near_duplicate_threshold),
        *_by_meaning(embedder, policy.semantic_threshold, semantic_duplicates),
        *([rehearsal(policy.rehearsal_share)] if policy.rehearsal_share else []),
    ]


def _by_meaning(
    embedder: Embedder | None, threshold: float | None, stage: Callable[[Embedder, float], Stage]
) -> list[Stage]:
    if threshold is None:
        return []
    if embedder is None:
        raise Misconfigured("the job compares by meaning, and no embedder is here")
    return [stage(embedder, threshold)]


def _annotations(file: SourceFile | None, problems: list[Problem]) -> list[Annotation]:
    if file is None:
        return []
    try:
        return read_annotations(file.content, file.file)
    except InvalidInput as error:
        problems.extend(error.problems)
        return []


def _read_all(sources: Sequence[SourceFile], problems: list[Problem]) -> Iterator[TracedRow]:
    seen: dict[str, str] = {}
    for source in sources:
        yield from read_rows(source, "target", problems, seen)


def _extra_source_problems(job: AdaptationJob, sources: Sequence[SourceFile]) -> list[Problem]:
    found = (
        licence_problem(
            source.licence, source.file, allowed=job.curation.licences, tenant=job.tenant
        )
        for source in sources[len(job.data) :]
    )
    return [problem for problem in found if problem]


def _too_few(before: int, after: int, minimum: int, tallies: Sequence[Tally]) -> Problem:
    reasons = ", ".join(
        f"{reason} {count}" for tally in tallies for reason, count in sorted(tally.dropped.items())
    )
    return Problem(
        where="data",
        problem=f"{after} of {before} rows remain, {minimum} needed (dropped: {reasons or 'none'})",
        mend="add rows that are neither duplicates nor in an evaluation set",
    )

"""Curation as one function: governed sources in, a dataset snapshot or a named halt out.

Order matters. Licences come first, before a row is looked at. The contamination sweep and the
volatility check read rows as written; redaction follows, and duplicates after it, because two rows
that differed only in whose e-mail they held are one row afterwards. Label noise is looked for while
near duplicates are still there: they are what contradicts.

Rows go through in two legs, since a row is noise only beside all others. Each leg sends one shard
after the other through its stages and commits it (`services.curation.workbench`): memory does not
grow with the corpus, and what a killed curation had done is not done again. The stages of the first
leg that look at one row at a time may run in several processes (`services.curation.sifting`); their
shards are committed in order all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from contracts.base import Problem, digest_of
from contracts.curation import RecalibrationRequired
from contracts.data import Annotation, Row
from contracts.distillation import DistillationParameters
from contracts.job import AdaptationJob
from services.curation.assembly import Account, Curated, assemble
from services.curation.census import Census
from services.curation.checking import Extent, check, extents
from services.curation.crew import in_order
from services.curation.duplicates import exact_duplicates, near_duplicates
from services.curation.firsts import Firsts
from services.curation.licences import PROPRIETARY, licence_problem, source_problems
from services.curation.meaning import by_meaning, semantic_duplicates
from services.curation.names import names
from services.curation.noise import Answers, noise
from services.curation.proposals import Proposals
from services.curation.raters import recalibration
from services.curation.reading import NAMED, SourceFile, first_of, read_rows, summarised
from services.curation.redaction import Audit, Detector
from services.curation.refusals import RefusalLog, refusal_stage
from services.curation.rehearsal import wanted
from services.curation.rows import Stage, Tally
from services.curation.sifting import Piece, Sifted, Sifter
from services.curation.snapshot import json_line, library_versions
from services.curation.tools import tool_schemas
from services.curation.workbench import Workbench
from shared.annotations import Ballot, ballots, measured_lines, read_annotations
from shared.errors import InvalidInput
from shared.similarity.meaning import Embedder
from shared.similarity.minhash import NearDuplicates

VERSION = 3
"""Of what the stages do; a folder of another version is not resumed."""
SIFT, UNLIKE = "sift", "unlike"
HaltReason = Literal["licence", "unreadable", "too_few_rows", "volatile_facts"]


@dataclass(frozen=True, slots=True)
class Halted:
    """The data must not be trained on as it is."""

    reason: HaltReason
    problems: tuple[Problem, ...]


def synthetic_source(
    job: AdaptationJob, content: bytes, *, taught: DistillationParameters | None = None
) -> SourceFile:
    """Rows synthesized from the job's positive data, under the licences of that data.

    Answers of a distillation's teacher are under its licence too.
    """
    teacher = {taught.teacher.licence} if taught is not None else set()
    licences = sorted({s.licence for s in job.data if s.role == "positive"} | teacher)
    own = [licence for licence in licences if licence.startswith(PROPRIETARY)]
    joined = " AND ".join(f"({x})" if " " in x and len(licences) > 1 else x for x in licences)
    return SourceFile(
        file="synthetic.jsonl",
        content=content,
        licence=own[0] if own else joined,
        provenance="synthesized from the curated positive rows; each row names its origin"
        if taught is None
        else f"answers of {taught.teacher.name} to the curated rows' requests",
    )


def curate(
    job: AdaptationJob,
    sources: Sequence[SourceFile],
    evaluation: Mapping[str, SourceFile],
    detector: Detector,
    folder: Path,
    *,
    annotations: SourceFile | None = None,
    embedder: Embedder | None = None,
    notes: Sequence[str] = (),
    taught: bool = False,
    minimum_rows: int = 1,
    processes: int = 1,
    on_advance: Callable[[Advance], None] = lambda _: None,
) -> Curated | Halted | RecalibrationRequired:
    """Run every stage, shard by shard, in `folder`; what is done there already is not done again.

    Args:
        job: its policies decide; `job.data[i]` describes `sources[i]`. Sources beyond `job.data`
            (synthetic rows, contrast pairs) are held to the same licence rule by their own fields.
        sources: the training files.
        evaluation: set name (`dev`, `heldout`) → file; training rows that overlap one are dropped.
        detector: finds personal data and secrets.
        folder: where shards and the ledger are kept; the files of the dataset are in it afterwards.
        annotations: labels of raters, besides those that rows carry themselves.
        embedder: compares by meaning, where the job gives a threshold for it.
        notes: what synthesis warns of, for the card.
        taught: whether a teacher's answers are among the sources, to be learned in place of those
            of the job's own positive rows.
        minimum_rows: fewer rows than this after all stages halt with `too_few_rows`.
        processes: workers for what looks at one row at a time; 1: this process alone. What comes
            out is the same.
        on_advance: told after every shard; what it raises ends the curation there.

    Raises:
        TransientError: another process curates in `folder`.
        WorkerKilled: a worker was killed again and again at one shard.

    """
    blocked = source_problems(job) + _extra_source_problems(job, sources)
    if blocked:
        return Halted("licence", summarised(blocked, "sources"))
    given = _Given(
        job=job,
        sources=tuple(sources),
        evaluation=evaluation,
        detector=detector,
        annotations=annotations,
        embedder=embedder,
        notes=tuple(notes),
        taught=taught,
        minimum_rows=minimum_rows,
        processes=processes,
        on_advance=on_advance,
    )
    with Workbench(folder, content_key(given)) as bench:
        return _curate(given, bench)


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a leg of curation is."""

    leg: str
    done: int
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What `curate` was given."""

    job: AdaptationJob
    sources: tuple[SourceFile, ...]
    evaluation: Mapping[str, SourceFile]
    detector: Detector
    annotations: SourceFile | None
    embedder: Embedder | None
    notes: tuple[str, ...]
    taught: bool
    minimum_rows: int
    processes: int
    on_advance: Callable[[Advance], None]


def content_key(given: _Given) -> str:
    """The digest of all that determines the outcome."""
    files = [*given.sources, *given.evaluation.values()]
    files += [given.annotations] if given.annotations else []
    determined = {
        "pipeline": VERSION,
        "job": given.job.model_dump(mode="json", by_alias=True),
        "files": [(f.file, f.digest, f.role, f.licence, f.provenance) for f in files],
        "sources": len(given.sources),
        "sets": list(given.evaluation),
        "embedder": given.embedder.name if given.embedder else None,
        "detector": type(given.detector).__name__,
        "notes": given.notes,
        "taught": given.taught,
        "minimum_rows": given.minimum_rows,
        "libraries": library_versions(),
    }
    return digest_of(json_line(determined))


def _curate(given: _Given, bench: Workbench) -> Curated | Halted | RecalibrationRequired:
    job, policy = given.job, given.job.curation
    problems: list[Problem] = []
    held = {
        name: [t.row for t in read_rows(file, "expected", problems)]
        for name, file in given.evaluation.items()
    }
    labelled = _annotations(given.annotations, problems)
    check(bench, given.sources, job)
    halted = _halted(bench, problems)
    if halted:
        return halted
    own = map(Annotation.model_validate_json, bench.lines("annotations"))
    labels = ballots([*labelled, *own])
    agreed = measured_lines(labels)
    divided = recalibration(agreed, labels, policy.minimum_kappa)
    if divided:
        return divided
    parts = list(extents(bench))
    sifting, unlike = _stages(given, held, labels, bench, parts)
    census = Census(bench.db)
    others, general = census.counts()
    if policy.rehearsal_share is not None:
        general = min(general, wanted(policy.rehearsal_share, others))
    if others + general < given.minimum_rows:
        tallies = [bench.account(stage.name) for stage in (*sifting, *unlike)]
        read = parts[-1].last_number if parts else 0
        too_few = _too_few(read, others + general, given.minimum_rows, tallies)
        return Halted("too_few_rows", (too_few,))
    account = Account(
        job=job,
        sources=given.sources,
        evaluation=tuple(held),
        agreement=agreed,
        embedder=given.embedder.name if given.embedder else None,
        notes=tuple(f"synthesis: {note}" for note in given.notes),
    )
    return assemble(account, bench, [*sifting, *unlike], parts, UNLIKE)


def _halted(bench: Workbench, elsewhere: Sequence[Problem]) -> Halted | None:
    """What the check of the rows found; `elsewhere` is unreadable in other files."""
    found, count = bench.problems("unreadable")
    if count or elsewhere:
        named = [*elsewhere, *found][:NAMED]
        return Halted("unreadable", first_of(named, count + len(elsewhere), "unreadable rows"))
    kinds: tuple[tuple[HaltReason, str], ...] = (
        ("licence", "rows"), ("volatile_facts", "volatile rows"),
    )  # fmt: skip
    for reason, noun in kinds:
        found, count = bench.problems(reason)
        if count:
            return Halted(reason, first_of(found, count, noun))
    return None


def _stages(
    given: _Given,
    held: Mapping[str, Sequence[Row]],
    labels: Mapping[str, Ballot],
    bench: Workbench,
    parts: Sequence[Extent],
) -> tuple[list[Stage], list[Stage]]:
    """Both legs, run to their end. The second begins when the first has seen every row."""
    policy, db = given.job.curation, bench.db
    sifter = Sifter(
        sources=given.sources,
        held=held,
        labels=labels,
        teachers=_teachers(given) if given.taught else None,
        policy=policy,
        detector=given.detector,
        embedder=given.embedder,
    )
    audit, refused, answers, census = Audit(), RefusalLog(), Answers(db), Census(db)
    beside = [
        exact_duplicates(Firsts(db, "contents")),
        tool_schemas(policy.noisy_rows),
        refusal_stage(policy, refused),
    ]
    threshold = policy.near_duplicate_threshold
    alike = NearDuplicates(threshold, db)
    proposals = Proposals(alike, db)
    with closing(_sifted(given, sifter, bench, parts)) as shards:
        for piece, sifted in shards:
            audit.entries += sifted.audit
            bench.run(
                SIFT, piece.part.shard, beside, iter(sifted.rows), audit, refused,
                answers.note, proposals.note, before=sifted.tallies,
            )  # fmt: skip
            given.on_advance(Advance(SIFT, piece.part.shard + 1, len(parts)))
    if not bench.done("vote", 0):
        with bench.committing("vote", 0):
            answers.vote()
            proposals.settle()
    unlike = [
        noise(policy.noisy_rows, answers),
        near_duplicates(threshold, alike, proposals.keys),
        *by_meaning(given.embedder, policy.semantic_threshold, partial(semantic_duplicates, db)),
        names(),
    ]
    for done, part in enumerate(parts, start=1):
        rows = bench.rows(SIFT, part.shard)
        bench.run(UNLIKE, part.shard, unlike, rows, audit, refused, census.note)
        given.on_advance(Advance(UNLIKE, done, len(parts)))
    return [*sifter.stages, *beside], unlike


def _sifted(
    given: _Given, sifter: Sifter, bench: Workbench, parts: Sequence[Extent]
) -> Generator[tuple[Piece, Sifted], None, None]:
    """The shards that are not committed yet, in order, sifted."""
    starts = (0, *(part.last_number for part in parts))
    pieces = [
        Piece(part, after)
        for part, after in zip(parts, starts, strict=False)
        if not bench.done(SIFT, part.shard)
    ]
    # A worker takes as long to start as one of them takes for a shard or two.
    workers = min(given.processes, len(pieces) // 2) if sifter.splits else 1
    with closing(in_order(sifter, pieces, workers, lambda piece: piece.name)) as found:
        yield from zip(pieces, found, strict=True)


def _teachers(given: _Given) -> frozenset[str]:
    return frozenset(source.digest for source in given.sources[len(given.job.data) :])


def _annotations(file: SourceFile | None, problems: list[Problem]) -> list[Annotation]:
    if file is None:
        return []
    try:
        return read_annotations(file.content, file.file)
    except InvalidInput as error:
        problems.extend(error.problems)
        return []


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

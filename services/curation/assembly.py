"""Rows that stay become a snapshot: split, canaries, the card and the files it names (C8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts.base import Digest, digest_of
from contracts.data import DatasetCard, LineAgreement, SourceRecord
from contracts.job import AdaptationJob
from services.curation import canaries as planting
from services.curation import composition as mix
from services.curation.card import markdown
from services.curation.overfit import overfit_warnings
from services.curation.reading import SourceFile
from services.curation.redaction import Audit
from services.curation.refusals import FILE as REFUSALS
from services.curation.refusals import RefusalLog
from services.curation.rows import Tally, TracedRow
from services.curation.snapshot import Snapshot, library_versions, lineage_bytes, rows_bytes
from services.curation.splitting import split
from shared.annotations import uncertain
from shared.doctrine.volatility import Volatility, volatility


@dataclass(frozen=True, slots=True)
class Curated:
    """A snapshot (train, validation, lineage, redactions as JSON Lines) and its readable card."""

    snapshot: Snapshot
    card_markdown: str
    train: tuple[TracedRow, ...]

    @property
    def seeds(self) -> bytes:
        """Positive training rows, for synthesis. Validation rows never seed."""
        return rows_bytes(t.row for t in self.train if t.role == "positive" and not t.row.origin)

    @property
    def rows(self) -> dict[str, int]:
        return self.snapshot.card.splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the card tells besides the rows themselves."""

    job: AdaptationJob
    sources: tuple[SourceFile, ...]
    rows: Mapping[tuple[str, Digest], int]
    """(file, digest) → rows read."""
    tallies: tuple[Tally, ...]
    audit: Audit
    refusals: RefusalLog
    evaluation: tuple[str, ...]
    """Names of the evaluation sets."""
    agreement: tuple[LineAgreement, ...]
    embedder: str | None = None
    notes: tuple[str, ...] = ()


def assemble(account: Account, kept: Sequence[TracedRow]) -> Curated:
    """The snapshot of the rows that went through every stage."""
    policy = account.job.curation
    train, validation = split(kept, policy.validation_share)
    measured = mix.composition(train)
    warnings = [w for tally in account.tallies for w in tally.warnings]
    warnings += overfit_warnings([t.row for t in train])
    planted = planting.canaries(account.job.tenant, policy.canaries, _secret(account))
    if planted:
        train = [*train, *planting.planted_rows(planted, train[0].row)]
    splits = {"train": train, "validation": validation}
    scores = {t.row.id: volatility(t.row) for rows in splits.values() for t in rows}
    files = {
        "train.jsonl": rows_bytes(t.row for t in train),
        "lineage.jsonl": lineage_bytes(splits, account.tallies, scores),
        "redactions.jsonl": account.audit.to_jsonl(),
    }
    if validation:
        files["validation.jsonl"] = rows_bytes(t.row for t in validation)
    if planted:
        files[planting.FILE] = planting.canaries_bytes(planted)
    if account.refusals.entries:
        files[REFUSALS] = account.refusals.to_jsonl()
    wanted = {str(role): share for role, share in policy.composition.items()}
    card = DatasetCard(
        schema="sluice.dataset/v1",
        sources=_records(account),
        stages=tuple(tally.report() for tally in account.tallies),
        splits={"train": len(train), "validation": len(validation)},
        files={name: digest_of(content) for name, content in sorted(files.items())},
        composition=measured,
        composition_target=wanted,
        contamination=_contamination(account),
        agreement=account.agreement,
        volatility=_volatility(scores.values()),
        refusals=_refusals(account.refusals),
        canaries=len(planted),
        warnings=(
            *mix.deviations(measured, wanted, policy.composition_tolerance),
            *uncertain(account.agreement, policy.minimum_kappa),
            *warnings,
            *account.notes,
        ),
        tools=library_versions() | ({"embedder": account.embedder} if account.embedder else {}),
    )
    return Curated(Snapshot(card, files), markdown(card), tuple(train))


def _secret(account: Account) -> list[str]:
    return [account.job.name, *(source.digest for source in account.sources)]


def _records(account: Account) -> tuple[SourceRecord, ...]:
    job, records = account.job, []
    for index, source in enumerate(account.sources):
        described = job.data[index] if index < len(job.data) else None
        records.append(
            SourceRecord(
                uri=source.file,
                digest=source.digest,
                role=source.role,
                licence=described.licence if described else source.licence,
                provenance=described.provenance.source if described else source.provenance,
                rows=account.rows.get((source.file, source.digest), 0),
            )
        )
    return tuple(records)


def _contamination(account: Account) -> dict[str, int]:
    counts = dict.fromkeys(account.evaluation, 0)
    for tally in account.tallies:
        if tally.stage in {"contamination", "paraphrases"}:
            for reason, count in tally.dropped.items():
                counts[reason.split(":", 1)[0]] += count
    return counts


def _volatility(scores: Iterable[Volatility]) -> dict[str, int]:
    kinds = Counter(kind for score in scores for kind in score.kinds)
    return dict(sorted(kinds.items()))


def _refusals(log: RefusalLog) -> dict[str, int]:
    counts = Counter(entry.kind for entry in log.entries)
    counts["forced"] = sum(bool(entry.mandates) for entry in log.entries)
    return dict(sorted(counts.items())) if log.entries else {}

"""Rows that stay become a snapshot: split, canaries, the card and the files it names (C8).

One pass over the last shards writes every file, row by row; nothing of the dataset is in memory but
counts, the groups that validate and a sample for the checks of style.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.base import Digest
from contracts.data import DatasetCard, LineAgreement, SourceRecord
from contracts.job import AdaptationJob
from services.curation import canaries as planting
from services.curation import composition as mix
from services.curation.card import markdown
from services.curation.census import Census, group_key
from services.curation.checking import Extent
from services.curation.lineage import fate_entry, kept_entry
from services.curation.overfit import Sample, overfit_warnings
from services.curation.reading import SourceFile
from services.curation.refusals import FILE as REFUSALS
from services.curation.rehearsal import rehearsal
from services.curation.rows import Stage, Tally, TracedRow, through
from services.curation.snapshot import (
    OutputFile,
    Snapshot,
    json_line,
    library_versions,
    row_bytes,
)
from services.curation.workbench import Workbench
from shared.annotations import uncertain
from shared.doctrine.volatility import volatility

SEEDS = "seeds.jsonl"


@dataclass(frozen=True, slots=True)
class Curated:
    """A snapshot (train, validation, lineage, redactions as JSON Lines) and its readable card."""

    snapshot: Snapshot
    card_markdown: str
    seeds: Path | None
    """Positive training rows, where the job synthesizes. Validation rows never seed."""

    @property
    def rows(self) -> dict[str, int]:
        return self.snapshot.card.splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the card tells besides the rows themselves."""

    job: AdaptationJob
    sources: tuple[SourceFile, ...]
    evaluation: tuple[str, ...]
    """Names of the evaluation sets."""
    agreement: tuple[LineAgreement, ...]
    embedder: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Told:
    """What writing the rows tells the card."""

    splits: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    volatility: Counter[str] = field(default_factory=Counter)
    sample: Sample = field(default_factory=Sample)
    first: TracedRow | None = None
    seeds: OutputFile | None = None


class _Files:
    """The files of the dataset, each begun when its first line comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, OutputFile] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: bytes) -> None:
        if name not in self._open:
            self.begin(name)
        self._open[name].write(line)

    def begin(self, name: str) -> None:
        self._open[name] = OutputFile(self._folder / name)

    def close(self) -> tuple[dict[str, Path], dict[str, Digest]]:
        """Where the files are, and their digests."""
        digests = {name: file.close() for name, file in sorted(self._open.items())}
        return {name: file.path for name, file in sorted(self._open.items())}, digests


def assemble(
    account: Account,
    bench: Workbench,
    stages: Sequence[Stage],
    parts: Sequence[Extent],
    leg: str,
) -> Curated:
    """The snapshot of the rows that the shards of `leg` hold. `stages` are those before it."""
    policy = account.job.curation
    last, held = _last_stage(bench, account.job)
    surplus = Tally("rehearsal")
    files, told = _Files(bench.folder / "out"), _Told()
    if account.job.synthesis is not None or account.job.method.may_ask:
        told.seeds = OutputFile(bench.folder / "out" / SEEDS)
    for name in ("train.jsonl", "lineage.jsonl", "redactions.jsonl"):
        files.begin(name)
    after = 0
    for part in parts:
        kept, entries = _through(last, bench.rows(leg, part.shard), surplus)
        entries |= bench.ledger(after, part.last_number)
        notes = bench.notes(after, part.last_number)
        for traced in kept:
            name = "validation" if group_key(traced) in held else "train"
            entries[traced.number] = _written(files, told, traced, name, notes)
        for _, entry in sorted(entries.items()):
            files.write("lineage.jsonl", json_line(entry))
        after = part.last_number
    composition = {role: round(n / told.roles.total(), 4) for role, n in sorted(told.roles.items())}
    planted = _plant(account, files, told)
    for name, table in (("redactions.jsonl", "audit"), (REFUSALS, "refusals")):
        for line in bench.lines(table):
            files.write(name, line.encode())
    tallies = [bench.account(stage.name) for stage in stages]
    warnings = [said for s, t in zip(stages, tallies, strict=True) for said in s.warn(t)]
    if last:
        tallies.append(surplus)
        warnings += last.warn(surplus)
    wanted = {str(role): share for role, share in policy.composition.items()}
    paths, digests = files.close()
    card = DatasetCard(
        schema="sluice.dataset/v1",
        sources=_records(account, bench),
        stages=tuple(tally.report() for tally in tallies),
        splits={"train": told.splits["train"], "validation": told.splits["validation"]},
        files=digests,
        composition=composition,
        composition_target=wanted,
        contamination=_contamination(account, tallies),
        agreement=account.agreement,
        volatility=dict(sorted(told.volatility.items())),
        refusals=_refusals(bench),
        canaries=planted,
        warnings=(
            *mix.deviations(composition, wanted, policy.composition_tolerance),
            *uncertain(account.agreement, policy.minimum_kappa),
            *warnings,
            *overfit_warnings(told.sample.rows()),
            *account.notes,
        ),
        tools=library_versions() | ({"embedder": account.embedder} if account.embedder else {}),
    )
    seeds = None
    if told.seeds is not None:
        told.seeds.close()
        seeds = told.seeds.path
    return Curated(Snapshot(card, paths), markdown(card), seeds)


def _last_stage(bench: Workbench, job: AdaptationJob) -> tuple[Stage | None, frozenset[bytes]]:
    """The stage that leaves out surplus rehearsal, and the groups that validate after it."""
    census, policy = Census(bench.db), job.curation
    if policy.rehearsal_share is None:
        return None, census.held(policy.validation_share, None)
    cutoff = census.cutoff(policy.rehearsal_share)
    stage = rehearsal(policy.rehearsal_share, *census.counts(), cutoff)
    return stage, census.held(policy.validation_share, cutoff)


def _through(
    stage: Stage | None, rows: Iterator[TracedRow], total: Tally
) -> tuple[list[TracedRow], dict[int, dict[str, Any]]]:
    """The rows that stay, and the lineage of those that go, by number."""
    if stage is None:
        return list(rows), {}
    stream, [tally] = through([stage], rows)
    kept = list(stream)
    total.rows_in += tally.rows_in
    total.rows_out += tally.rows_out
    total.dropped += tally.dropped
    return kept, {fate.row.number: fate_entry(fate) for fate in tally.fates}


def _written(
    files: _Files,
    told: _Told,
    traced: TracedRow,
    split: str,
    notes: Mapping[int, list[dict[str, str]]],
) -> dict[str, Any]:
    """Write one row; its line of the lineage."""
    found, content = volatility(traced.row), row_bytes(traced.row)
    files.write(f"{split}.jsonl", content)
    told.splits[split] += 1
    told.volatility.update(found.kinds)
    if split == "train":
        if told.seeds and traced.role == "positive" and not traced.row.origin:
            told.seeds.write(content)
        told.first = told.first or traced
        told.roles[traced.role] += 1
        told.sample.offer(traced.row)
    return kept_entry(traced, content, split, found.score, notes.get(traced.number, []))


def _plant(account: Account, files: _Files, told: _Told) -> int:
    """Plant the canaries after the training rows; how many."""
    if not account.job.curation.canaries or told.first is None:
        return 0
    secret = [account.job.name, *(source.digest for source in account.sources)]
    planted = planting.canaries(account.job.tenant, account.job.curation.canaries, secret)
    for line in planting.canary_lines(planted):
        files.write(planting.FILE, line)
    for traced in planting.planted_rows(planted, told.first.row):
        found, content = volatility(traced.row), row_bytes(traced.row)
        files.write("train.jsonl", content)
        entry = kept_entry(traced, content, "train", found.score, [])
        files.write("lineage.jsonl", json_line(entry))
        told.splits["train"] += 1
    return len(planted)


def _records(account: Account, bench: Workbench) -> tuple[SourceRecord, ...]:
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
                rows=bench.count("sources", str(index)),
            )
        )
    return tuple(records)


def _contamination(account: Account, tallies: Sequence[Tally]) -> dict[str, int]:
    counts = dict.fromkeys(account.evaluation, 0)
    for tally in tallies:
        if tally.stage in {"contamination", "paraphrases"}:
            for reason, count in tally.dropped.items():
                counts[reason.split(":", 1)[0]] += count
    return counts


def _refusals(bench: Workbench) -> dict[str, int]:
    query = "SELECT kind, count(*), sum(forced) FROM refusals GROUP BY kind"
    found = bench.db.execute(query).fetchall()
    counts = {kind: n for kind, n, _ in found} | {"forced": sum(n for _, _, n in found)}
    return dict(sorted(counts.items())) if found else {}

"""The part of the first leg that looks at one row at a time, whatever other rows say.

It is most of the work, redaction above all, and a shard of it can be done by any process: it reads
the shard from its source and gives back the rows that stay with an account of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from contracts.base import Digest
from contracts.data import Row
from contracts.governance import CurationPolicy
from services.curation.checking import Extent, rows_of
from services.curation.contamination import contamination_sweep
from services.curation.meaning import by_meaning, paraphrase_sweep
from services.curation.openings import openings
from services.curation.private import WithPrivateTerms
from services.curation.raters import settle
from services.curation.reading import SourceFile
from services.curation.redaction import Audit, Detector, Redaction, redaction
from services.curation.rows import Stage, Tally, TracedRow, through
from services.curation.taught import teachers_answers
from services.curation.withholding import withheld
from shared.annotations import Ballot
from shared.similarity.meaning import Embedder


@dataclass(frozen=True, slots=True)
class Piece:
    """A shard to sift."""

    part: Extent
    after: int
    """The number of the last row before it."""

    @property
    def name(self) -> str:
        return f"shard {self.part.shard}, from line {self.part.line} of its source"


@dataclass(frozen=True, slots=True)
class Sifted:
    """What came of it."""

    rows: list[TracedRow]
    tallies: list[Tally]
    audit: list[Redaction]


@dataclass(frozen=True, kw_only=True)
class Sifter:
    """Sifts shards. It can be pickled while it has sifted none."""

    sources: tuple[SourceFile, ...]
    held: Mapping[str, Sequence[Row]]
    """Name of an evaluation set → its items."""
    labels: Mapping[str, Ballot]
    teachers: frozenset[Digest] | None
    """The sources that are a teacher's, where one is learned from."""
    policy: CurationPolicy
    detector: Detector
    embedder: Embedder | None

    @property
    def splits(self) -> bool:
        """Whether more than one process gains: a model on all cores, held by each, would not."""
        return self.policy.paraphrase_threshold is None

    @cached_property
    def stages(self) -> list[Stage]:
        """In this order: the sweep reads rows as written, before anything of them is changed."""
        policy, detector = self.policy, self.detector
        if policy.private_terms:
            detector = WithPrivateTerms(detector, policy.private_terms)
        paraphrases = partial(paraphrase_sweep, self.held)
        return [
            *([] if self.teachers is None else [teachers_answers(self.teachers)]),
            *([withheld(policy.withheld_rows)] if policy.withheld_rows else []),
            *([settle(self.labels, policy.refused_labels)] if self.labels else []),
            contamination_sweep(self.held),
            *by_meaning(self.embedder, policy.paraphrase_threshold, paraphrases),
            redaction(detector, self._audit),
            openings(),
        ]

    @cached_property
    def _audit(self) -> Audit:
        return Audit()

    def __call__(self, piece: Piece) -> Sifted:
        """The shard's rows that stay."""
        stream, tallies = through(self.stages, rows_of(piece.part, piece.after, self.sources))
        rows = list(stream)
        return Sifted(rows, tallies, self._audit.taken())

"""What people made of answers becomes rows to tune on: pairs, and answers to give or to avoid.

A correction or an override with its text is a pair: the correction over the answer. A thumb up is a
desirable answer; a thumb down, an override without a text, a false refusal and a safety incident
are undesirable ones. Telemetry holds no text, so the tenant's own log of interactions is joined to
it by request.

Three rules come before anything else: nothing without consent, nothing of another tenant, and
nothing unredacted leaves. `python -m services.curation.feedback TENANT INTERACTIONS FEEDBACK OUT`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from contracts.base import Problem, digest_of
from contracts.data import Row
from contracts.telemetry import Feedback, FeedbackKind, Interaction
from services.curation.adapters.pii import PiiDetector
from services.curation.redaction import Audit, Detector, redaction
from services.curation.rows import TracedRow, through
from services.curation.snapshot import rows_bytes
from shared.errors import InvalidInput

GOOD: frozenset[FeedbackKind] = frozenset({"accepted"})
BAD: frozenset[FeedbackKind] = frozenset(
    {"rejected", "override", "false_refusal", "safety_incident"}
)
_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Harvest:
    """Redacted rows, why the rest is not among them, and where values were redacted."""

    rows: tuple[Row, ...]
    left_out: dict[str, int]
    redacted: dict[str, int]


def harvest(
    tenant: str,
    interactions: Sequence[Interaction],
    feedback: Iterable[Feedback],
    detector: Detector,
) -> Harvest:
    """Rows of one tenant, in the order of its interactions."""
    left_out: Counter[str] = Counter()
    said: dict[str, set[FeedbackKind]] = defaultdict(set)
    for given in feedback:
        if given.tenant == tenant:
            said[given.request_id].add(given.kind)
        else:
            left_out["feedback_of_another_tenant"] += 1
    made = list(_rows(tenant, interactions, said, left_out))
    audit = Audit()
    source = digest_of(b"")
    traced = [TracedRow(row, "feedback", n, source, "negative") for n, row in enumerate(made, 1)]
    stream, tallies = through([redaction(detector, audit)], traced)
    rows = tuple(t.row for t in stream)
    return Harvest(rows, dict(sorted(left_out.items())), dict(sorted(tallies[0].changes.items())))


def _rows(
    tenant: str,
    interactions: Sequence[Interaction],
    said: dict[str, set[FeedbackKind]],
    left_out: Counter[str],
) -> Iterator[Row]:
    for one in interactions:
        kinds = said.get(one.request_id, set())
        reason = _unusable(tenant, one, kinds)
        if reason:
            left_out[reason] += 1
            continue
        name = hashlib.sha256(f"{tenant}\n{one.request_id}".encode()).hexdigest()[:20]
        person = one.user or one.request_id
        row = Row(
            id=f"fb-{name}",
            messages=one.messages,
            tools=one.tools,
            target=one.correction or one.answer,
            group="user-" + hashlib.sha256(f"{tenant}\n{person}".encode()).hexdigest()[:16],
            meta={"feedback": sorted(kinds)},
        )
        if one.correction:
            yield row.model_copy(update={"rejected": one.answer})
        else:
            yield row.model_copy(update={"desirable": not kinds & BAD})


def _unusable(tenant: str, one: Interaction, kinds: set[FeedbackKind]) -> str | None:
    if one.tenant != tenant:
        return "interaction_of_another_tenant"
    if not one.consent:
        return "no_consent"
    if not kinds and one.correction is None:
        return "no_feedback"
    if one.correction is not None:
        return "correction_changes_nothing" if one.correction == one.answer else None
    if kinds & GOOD and kinds & BAD:
        return "contradictory_feedback"
    return None if kinds & (GOOD | BAD) else "correction_without_its_text"


def read_lines(kind: type[_Document], content: bytes, name: str) -> list[_Document]:
    """JSON Lines. Raises InvalidInput naming the first malformed line."""
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                found.append(kind.model_validate_json(line))
            except ValidationError as error:
                detail = error.errors(include_url=False, include_input=False)[0]
                at = ".".join(str(part) for part in detail["loc"])
                raise InvalidInput(
                    [
                        Problem(
                            where=f"{name}:{number}",
                            problem=f"{at}: {detail['msg']}",
                            mend=f"see `sluice schema {kind.__name__.lower()}`",
                        )
                    ]
                ) from error
    return found


def main() -> int:
    tenant, log, given, out = sys.argv[1], *map(Path, sys.argv[2:5])
    found = harvest(
        tenant,
        read_lines(Interaction, log.read_bytes(), log.name),
        read_lines(Feedback, given.read_bytes(), given.name),
        PiiDetector(),
    )
    out.write_bytes(rows_bytes(found.rows))
    kinds = Counter("pair" if r.rejected else "desirable" if r.desirable else "undesirable"
                    for r in found.rows)  # fmt: skip
    print(json.dumps({"out": str(out), "rows": dict(sorted(kinds.items())),
                      "left_out": found.left_out, "redacted": found.redacted}))  # fmt: skip
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InvalidInput as error:
        for problem in error.problems:
            print(f"error: {problem.where}: {problem.problem}", file=sys.stderr)
            print(f"mend: {problem.mend}", file=sys.stderr)
        raise SystemExit(2) from error

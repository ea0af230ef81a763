"""Precision and recall of redaction, by type: `python -m tests.curation.pii.accuracy`.

`labelled.jsonl` has strings that hold personal data, secrets and private hosts (all made up), the
same values in forms that hide them, and strings that only look like them. `~~` in a value is left
out when it is read: no token scanner should take this file for a leak. The rules were tuned on all
parts but `last`, which was written after them and is what to expect of any text. A value is
found where one detected span of its type covers four fifths of it; a detected span is right where
it overlaps a value of its type.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from services.curation.adapters.pii import PiiDetector
from services.curation.redaction import Detector
from services.curation.view import view_of
from shared.statistics import wilson

LABELLED = Path(__file__).with_name("labelled.jsonl")
COVERED = 0.8
PARTS = ("tune", "unseen", "fresh", "later", "last")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A string, how its values are written, and where they are."""

    text: str
    form: str
    values: tuple[tuple[str, int, int], ...]
    """(type, start, end)."""


@dataclass(slots=True)
class Counts:
    found: int = 0
    missed: int = 0
    false_alarms: int = 0

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.found + self.missed)


def labelled(part: str) -> list[Labelled]:
    cases = []
    for line in LABELLED.read_text("utf-8").splitlines():
        entry = json.loads(line)
        if entry["part"] != part:
            continue
        text = entry["text"].replace("~~", "")
        values = []
        for kind, value in entry["values"]:
            clean = value.replace("~~", "")
            start = text.index(clean)
            values.append((kind, start, start + len(clean)))
        cases.append(Labelled(text, entry["form"], tuple(values)))
    return cases


def measure(
    detector: Detector, part: str
) -> tuple[dict[str, Counts], dict[str, Counts], list[str]]:
    """(by type, by form, a line for every miss and false alarm)."""
    cases = labelled(part)
    views = [view_of(case.text) for case in cases]
    by_type: dict[str, Counts] = defaultdict(Counts)
    by_form: dict[str, Counts] = defaultdict(Counts)
    errors: list[str] = []
    detected = detector.detect([view.text for view in views])
    for case, view, spans in zip(cases, views, detected, strict=True):
        raw = [(s.kind, *view.raw_span(s.start, s.end)) for s in spans]
        for kind, start, end in case.values:
            reach = max((min(b, end) - max(a, start) for k, a, b in raw if k == kind), default=0)
            hit = reach >= COVERED * (end - start)
            for counts in (by_type[kind], by_form[case.form]):
                counts.found += hit
                counts.missed += not hit
            if not hit:
                errors.append(f"missed {kind} ({case.form}): {case.text[:90]!r}")
        for kind, a, b in set(raw):
            if not any(k == kind and a < end and start < b for k, start, end in case.values):
                if any(a < end and start < b for _, start, end in case.values):
                    continue  # inside a value of another type: it is hidden all the same
                by_type[kind].false_alarms += 1
                by_form[case.form].false_alarms += 1
                errors.append(
                    f"false {kind} ({case.form}): {case.text[a:b]!r} in {case.text[:80]!r}"
                )
    return dict(by_type), dict(by_form), errors


def table(counts: dict[str, Counts], what: str) -> list[str]:
    lines = [f"| {what} | values | precision | recall | 95 % interval of recall |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, c in sorted(counts.items()):
        n = c.found + c.missed
        if n == 0:
            lines.append(f"| {name} | 0 | {c.false_alarms} false alarms | – | – |")
            continue
        span = wilson(c.found, n)
        precision = f"{c.precision:.3f}" if c.found + c.false_alarms else "–"
        lines.append(f"| {name} | {n} | {precision} | {c.recall:.3f} | "
                     f"{span.low:.3f} to {span.high:.3f} |")  # fmt: skip
    return lines


if __name__ == "__main__":
    for part in PARTS:
        types, forms, errors = measure(PiiDetector(), part)
        print(f"\n{part}: {len(labelled(part))} strings\n")
        print("\n".join([*table(types, "type"), "", *table(forms, "form"), "", *errors]))

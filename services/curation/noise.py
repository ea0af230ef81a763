"""Labels that contradict each other: noise that training would amplify (C7, F1).

Two signals. *Contradiction*: the same request, in normal form and with the same tools, has
different answers, where answers are meant to agree: calls, and texts of at most twelve words.
*Outvoted*: where answers are a few labels, a row whose most similar requests all carry one other
label. Longer free text may answer one request in many ways, and judged rows are meant to differ, so
neither is looked at.

Noise is reported and stays, or goes with `curation.noisy_rows: drop`: of a contradiction all rows
go, since nobody knows which is right.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from contracts.data import Row
from services.curation.rows import Stage, Tally, TracedRow, request_text
from shared.doctrine.volatility import is_tool_call
from shared.similarity.text import normal_form, shingles, words

SHORT = 12
FEW_LABELS = 12
NEIGHBOURS = 5
NEAR = 0.35
"""A neighbour whose shingles are less similar than this has no vote."""
_MOST_ROWS = 20_000
"""Above this the vote is taken among the first rows only; contradictions are found in all."""


def noise(policy: Literal["report", "drop"]) -> Stage:
    """Report or drop rows whose label others contradict."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        listed = list(rows)
        found = contradictions([t.row for t in listed])
        found = {**outvoted([t.row for t in listed]), **found}
        for index, traced in enumerate(listed):
            reason = found.get(index)
            if reason is None:
                yield traced
            elif policy == "drop":
                tally.drop(traced, *reason)
            else:
                tally.changes[f"reported:{reason[0]}"] += 1
                tally.notes.append((traced, *reason))
                yield traced
        if found and policy == "report":
            named = ", ".join(listed[i].row.id for i in sorted(found)[:5])
            tally.warnings.append(
                f"label noise: {len(found)} of {len(listed)} rows are contradicted ({named}); "
                "look at them, or set curation.noisy_rows to drop"
            )

    return Stage("label_noise", apply)


def contradictions(rows: Sequence[Row]) -> dict[int, tuple[str, str]]:
    """Index of each row that another contradicts → (reason, the other's id)."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if _comparable(row):
            tools = json.dumps(row.tools, sort_keys=True)
            turns = "\n".join(f"{m.role}: {normal_form(m.content)}" for m in row.messages)
            alike[turns, tools].append(index)
    found: dict[int, tuple[str, str]] = {}
    for indices in alike.values():
        answers = {index: _answer(rows[index]) for index in indices}
        if len(set(answers.values())) > 1:
            for index in indices:
                other = next(i for i in indices if answers[i] != answers[index])
                found[index] = "contradiction", f"{rows[other].id} answers otherwise"
    return found


def outvoted(rows: Sequence[Row]) -> dict[int, tuple[str, str]]:
    """Index of each row whose nearest requests agree on another label → (reason, that label)."""
    usable = [i for i, row in enumerate(rows[:_MOST_ROWS]) if _comparable(row)]
    labels = {i: _answer(rows[i]) for i in usable}
    if not usable or len(set(labels.values())) > min(FEW_LABELS, len(usable) // 5):
        return {}
    sets = {i: frozenset(shingles(request_text(rows[i]))) for i in usable}
    holders: dict[str, list[int]] = defaultdict(list)
    for i in usable:
        for gram in sets[i]:
            holders[gram].append(i)
    found: dict[int, tuple[str, str]] = {}
    for i in usable:
        shared: Counter[int] = Counter()
        for gram in sets[i]:
            shared.update(holders[gram])
        del shared[i]
        near = [(count / (len(sets[i]) + len(sets[j]) - count), j) for j, count in shared.items()]
        best = sorted((n for n in near if n[0] >= NEAR), key=lambda n: (-n[0], n[1]))[:NEIGHBOURS]
        votes = {labels[j] for _, j in best}
        if len(best) == NEIGHBOURS and len(votes) == 1 and labels[i] not in votes:
            found[i] = "outvoted", f"its {NEIGHBOURS} nearest requests say {min(votes)[:60]!r}"
    return found


def _comparable(row: Row) -> bool:
    if row.desirable is not None or row.rejected is not None or row.target is None:
        return False
    return is_tool_call(row.target) or len(words(row.target)) <= SHORT


def _answer(row: Row) -> str:
    target = row.target or ""
    try:
        return json.dumps(json.loads(target), sort_keys=True)
    except ValueError:
        return normal_form(target)

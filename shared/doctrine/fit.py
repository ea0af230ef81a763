"""Whether training rows have the shape their recipe learns from (T1).

Demonstrations (SFT, LoRA) show an answer to give. Texts (CPT) are of a domain, or of what must not
be forgotten. Pairs (DPO, IPO, PPO) have a better answer and a worse
one to the same request. Judged rows (KTO) have one answer, and a mark whether it is good. A row
that says nothing, or says the opposite of another row, is refused by name before anything is
trained: the loss would take it silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from contracts.base import Problem
from contracts.data import Row

PAIRED = frozenset({"dpo", "ipo", "ppo"})
"""Recipes that learn from pairs."""
JUDGED = frozenset({"kto"})
"""Recipes that learn from single answers marked `desirable` or not."""
TRACED = frozenset({"reasoning_distillation"})
"""Recipes whose teacher's traces are verified by what rows expect."""


def unfit_rows(recipe: str, rows: Iterable[Row]) -> Iterator[Problem]:
    """A problem, with its mend, for every row that `recipe` cannot learn from. Pure."""
    if recipe == "cpt":
        return _unfit_texts(rows)
    if recipe in PAIRED:
        return _unfit_pairs(recipe, rows)
    if recipe in JUDGED:
        return _unfit_judged(recipe, rows)
    if recipe in TRACED:
        return _unverifiable(recipe, rows)
    return _unfit_demonstrations(recipe, rows)


def _unfit_texts(rows: Iterable[Row]) -> Iterator[Problem]:
    listed = list(rows)
    if listed and not any(row.document == "domain" for row in listed):
        yield _problem(
            listed[0],
            "neither it nor any other row is a `document` of the domain",
            "set `document` to domain on the rows whose `target` is a text to learn",
        )
    yield from _unfit_demonstrations("cpt", (row for row in listed if row.document is None))


def _unfit_demonstrations(recipe: str, rows: Iterable[Row]) -> Iterator[Problem]:
    for row in rows:
        if row.document is not None:
            yield _problem(
                row,
                f"it is a document, and {recipe} learns answers",
                "use method.name domain_adaptation, or drop the row",
            )
        elif row.desirable is False:
            yield _problem(
                row,
                f"its answer is marked undesirable, and {recipe} would teach it",
                "drop the row, or use method.name preference",
            )


def _unverifiable(recipe: str, rows: Iterable[Row]) -> Iterator[Problem]:
    """Undesirable rows; and, if no row at all can verify a trace, the first one."""
    listed = list(rows)
    yield from _unfit_demonstrations(recipe, listed)
    if listed and all(row.expected is None for row in listed):
        yield _problem(
            listed[0],
            "it has no `expected`, nor has any other row, and nothing can verify a trace",
            "give rows what the job's scorer checks a final answer against",
        )


def _unfit_judged(recipe: str, rows: Iterable[Row]) -> Iterator[Problem]:
    marks: dict[Any, tuple[bool, str]] = {}
    for row in rows:
        answer = (row.target or "").strip()
        if not answer:
            yield _problem(row, "it has no `target`", "put the judged answer there")
        elif row.desirable is None:
            yield _problem(
                row,
                f"it does not say whether its answer is good, which {recipe} learns from",
                "set `desirable` to true or false; for pairs use method.preference.objective dpo",
            )
        else:
            mark, other = marks.setdefault((_request(row), answer), (row.desirable, row.id))
            if mark != row.desirable:
                yield _problem(
                    row, f"it marks the opposite of row {other!r}", "keep the one that is right"
                )


def _unfit_pairs(recipe: str, rows: Iterable[Row]) -> Iterator[Problem]:
    preferred: dict[Any, str] = {}
    for row in rows:
        chosen, rejected = (row.target or "").strip(), (row.rejected or "").strip()
        opposite = preferred.get((_request(row), rejected, chosen))
        if not chosen:
            yield _problem(row, "it has no `target`", "put the better answer there")
        elif not rejected:
            yield _problem(
                row,
                f"it has no `rejected`, and {recipe} compares two answers",
                "add the worse answer as `rejected`, or use method.name lora",
            )
        elif chosen == rejected:
            yield _problem(
                row, "`target` and `rejected` are the same answer", "drop the row, or mend one"
            )
        elif row.desirable is False:
            yield _problem(
                row,
                "it prefers an answer that it marks undesirable",
                "swap `target` and `rejected`, or remove `desirable`",
            )
        elif opposite is not None:
            yield _problem(
                row, f"it prefers the opposite of row {opposite!r}", "keep the one that is right"
            )
        preferred.setdefault((_request(row), chosen, rejected), row.id)


def _request(row: Row) -> Any:
    return tuple((m.role, m.content) for m in row.messages), str(row.tools)


def _problem(row: Row, problem: str, mend: str) -> Problem:
    return Problem(where=f"row {row.id!r}", problem=problem, mend=mend)

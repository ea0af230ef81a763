"""Break-even in tokens and in requests. Pure.

With V requests of T tokens, C spent once, and prices P per token,

    C_total(V) = C + V · T · P_student        C_teacher(V) = V · T · P_teacher

meet at V = C / (T · (P_teacher − P_student)) *requests*, which are V · T tokens. A student whose
failures fall back to the teacher costs P_student + f · P_teacher: the teacher answers a share f of
its requests a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from contracts.economics import MTOK, Ledger

Verdict = Literal["pays", "too_late", "never", "volume_unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Money in the ledger's currency; None where there is no break-even."""

    verdict: Verdict
    reason: str
    one_off_cost: float
    student_price_per_mtok: float
    """Effective: with fallbacks to the teacher."""
    saving_per_mtok: float
    break_even_tokens: float | None
    break_even_requests: float | None
    break_even_months: float | None
    """At the projected traffic."""
    horizon_saving: float | None
    """What the student has saved at the horizon, its one-off cost deducted."""
    claim: str | None
    """What is wrong with the claimed break-even; None if nothing is claimed, or it is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Break-even tokens when one entry alone is lower or higher; None: it never breaks even."""

    entry: str
    low: float | None
    high: float | None


def effective_price(ledger: Ledger) -> float:
    """The student's price of a million tokens, fallbacks to the teacher included."""
    return ledger.student_price_per_mtok + ledger.fallback_rate * ledger.teacher_price_per_mtok


def tokens_to_break_even(ledger: Ledger) -> float | None:
    """Tokens after which the student is the cheaper; None if it never is."""
    saving = ledger.teacher_price_per_mtok - effective_price(ledger)
    return ledger.one_off.total / saving * MTOK if saving > 0 else None


def costs(ledger: Ledger, requests: float) -> tuple[float, float]:
    """(C_total, C_teacher) after so many requests."""
    mtok = requests * ledger.tokens_per_request / MTOK
    return (
        ledger.one_off.total + mtok * effective_price(ledger),
        mtok * ledger.teacher_price_per_mtok,
    )


def break_even(ledger: Ledger) -> BreakEven:
    """The verdict with every number behind it."""
    tokens = tokens_to_break_even(ledger)
    requests = None if tokens is None else tokens / ledger.tokens_per_request
    monthly = ledger.monthly_requests
    months = requests / monthly if requests is not None and monthly else None
    verdict, reason = _verdict(ledger, requests, months)
    return BreakEven(
        verdict=verdict,
        reason=reason,
        one_off_cost=ledger.one_off.total,
        student_price_per_mtok=effective_price(ledger),
        saving_per_mtok=ledger.teacher_price_per_mtok - effective_price(ledger),
        break_even_tokens=tokens,
        break_even_requests=requests,
        break_even_months=months,
        horizon_saving=_saved(ledger),
        claim=_claim(ledger, tokens),
    )


def sensitivity(ledger: Ledger, *, change: float = 0.2) -> tuple[Sensitivity, ...]:
    """One entry at a time ± `change` (of itself), the widest swing first."""
    one_off = tuple(f"one_off.{name}" for name in type(ledger.one_off).model_fields)
    entries = (
        "teacher_price_per_mtok",
        "student_price_per_mtok",
        "fallback_rate",
        *one_off,
    )
    found = [
        Sensitivity(
            entry=entry,
            low=tokens_to_break_even(_with(ledger, entry, 1 - change)),
            high=tokens_to_break_even(_with(ledger, entry, 1 + change)),
        )
        for entry in entries
    ]
    return tuple(sorted(found, key=_swing, reverse=True))


def _verdict(ledger: Ledger, requests: float | None, months: float | None) -> tuple[Verdict, str]:
    if requests is None:
        return "never", (
            f"a million tokens cost {effective_price(ledger):g} from the student, fallbacks "
            f"included, and {ledger.teacher_price_per_mtok:g} from the teacher: "
            "no volume breaks even"
        )
    if ledger.monthly_requests is None:
        return "volume_unknown", (
            f"it breaks even after {requests:,.0f} requests; no traffic is projected"
        )
    horizon = ledger.monthly_requests * ledger.horizon_months
    said = (
        f"{requests:,.0f} requests break even; {horizon:,.0f} are projected "
        f"in {ledger.horizon_months:g} months"
    )
    return ("pays" if requests <= horizon else "too_late"), said


def _saved(ledger: Ledger) -> float | None:
    if ledger.monthly_requests is None:
        return None
    ours, teachers = costs(ledger, ledger.monthly_requests * ledger.horizon_months)
    return teachers - ours


def _claim(ledger: Ledger, tokens: float | None) -> str | None:
    claimed = ledger.claimed_break_even_tokens
    if claimed is None or (tokens is not None and abs(claimed - tokens) <= 0.01 * tokens):
        return None
    saving = ledger.teacher_price_per_mtok - effective_price(ledger)
    implied = claimed / MTOK * saving
    right = "never" if tokens is None else f"after {tokens / MTOK:,.1f} million tokens"
    return (
        f"{claimed / MTOK:,.1f} million tokens is wrong: it would need a one-off cost of "
        f"{implied:,.0f} instead of {ledger.one_off.total:,.0f}; these numbers break even {right}"
    )


def _with(ledger: Ledger, entry: str, factor: float) -> Ledger:
    group, _, name = entry.partition(".")
    if name:
        changed = getattr(ledger.one_off, name) * factor
        return ledger.model_copy(update={group: ledger.one_off.model_copy(update={name: changed})})
    changed = getattr(ledger, entry) * factor
    return ledger.model_copy(
        update={entry: min(changed, 1) if entry == "fallback_rate" else changed}
    )


def _swing(row: Sensitivity) -> float:
    if row.low is None or row.high is None:
        return float("inf")
    return abs(row.high - row.low)

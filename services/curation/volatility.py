"""Rows that would fossilise a fact halt curation, each named (C10). The doctrine has the rules."""

from __future__ import annotations

from contracts.base import Problem
from services.curation.rows import TracedRow
from shared.doctrine.volatility import volatile_problems


def volatile(traced: TracedRow) -> Problem | None:
    """What is wrong with a row whose target asserts a volatile fact."""
    return next(iter(volatile_problems([(traced.where, traced.row)])), None)

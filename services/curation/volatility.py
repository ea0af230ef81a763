"""Rows that would fossilise a fact halt curation, each named (C10). The doctrine has the rules."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.base import Problem
from services.curation.rows import TracedRow
from shared.doctrine.volatility import volatile_problems


def refusals(rows: Iterable[TracedRow]) -> list[Problem]:
    """A problem for every row whose target asserts a volatile fact."""
    return volatile_problems((traced.where, traced.row) for traced in rows)

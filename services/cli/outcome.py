"""A run's outcome as a process exit code."""

from __future__ import annotations

from contracts.run import Status

EXIT_CODES: dict[Status, int] = {
    "promoted": 0,
    "declined": 0,
    "diagnosed": 0,
    "halted": 3,
    "rejected": 3,
    "failed": 3,
    "rolled_back": 4,
    "withdrawn": 4,
    "cancelled": 5,
}
"""Closed outcomes. An open run (`active`, `held`) has no exit code yet."""

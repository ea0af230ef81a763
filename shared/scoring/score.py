"""The verdict on one answer, and the shape of the functions that give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from contracts.data import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The verdict on one answer."""

    value: float
    """0 (wrong) to 1 (right)."""
    valid: bool
    """The answer parses and satisfies its schema, right or wrong."""
    reason: str = ""
    """Why the value is below 1; empty for a right answer."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score lies in 0..1, not {self.value}")


Scorer = Callable[[Row, str], Score]
_MARK = "__sluice_scorer__"
_F = TypeVar("_F", bound=Callable[[Row, str], Score])


def scorer(function: _F) -> _F:
    """Declare `function` a scorer, so that a job may name it as `module:function`.

    A job comes from a tenant: without this mark it could name any importable callable.
    """
    setattr(function, _MARK, True)
    return function


def is_declared(function: object) -> bool:
    """Whether `function` carries the `@scorer` mark."""
    return getattr(function, _MARK, False) is True


def right() -> Score:
    """A right answer."""
    return Score(value=1.0, valid=True)


def wrong(reason: str) -> Score:
    """A usable answer that is wrong."""
    return Score(value=0.0, valid=True, reason=reason)


def unusable(reason: str) -> Score:
    """An answer that does not parse or breaks its schema."""
    return Score(value=0.0, valid=False, reason=reason)

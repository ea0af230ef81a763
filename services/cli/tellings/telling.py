"""What a fact in words is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mood = Literal["good", "bad", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """A fact in words."""

    headline: str
    details: tuple[str, ...] = ()
    mood: Mood = "plain"
    mends: tuple[str, ...] = ()

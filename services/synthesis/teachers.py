"""Teachers: the models that write synthetic requests, behind one small port (S1).

Diversity settings (temperature >= 1.0, nucleus p = 0.95) are enforced where a job is read
(`contracts.job.Teacher`); several teachers take turns so that no one voice dominates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.data import Message, Row
from contracts.governance import Teacher


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, and what gave it as far as the endpoint tells (S7)."""

    text: str
    api_version: str
    tokens: int = 0
    """Of the prompt and the answer, as the endpoint counts them."""
    cut: bool = False
    """It ran into the limit of tokens and does not end."""


class TeacherPort(Protocol):
    """One completion from one teacher."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
        key: str,
    ) -> Completion:
        """Ask once; `key` names the request, so that an endpoint can tell a repeat from a new one.

        Raises:
            PeerUnavailable: the endpoint does not answer; try again later.
            InvalidInput: this request will never be answered.
            Misconfigured: no request will be (key, model name).

        """
        ...


@dataclass(frozen=True, slots=True)
class Seat:
    """A teacher's settings and its port."""

    settings: Teacher
    port: TeacherPort


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one teacher, under a key that names all that determines it."""

    seed: Row
    attempt: int
    seat: Seat
    template: str
    messages: tuple[Message, ...]
    max_tokens: int

    @property
    def key(self) -> str:
        """Equal requests have equal keys in every process, so a paid answer is found again."""
        settings = self.seat.settings
        parts = [
            self.template,
            settings.model,
            settings.url,
            settings.temperature,
            settings.top_p,
            self.max_tokens,
            self.attempt,
            self.seed.id,
            [(m.role, m.content) for m in self.messages],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def sampling_seed(self) -> int:
        return int(self.key[:8], 16) & 0x7FFFFFFF

"""Whose turn a step is: users' requests, or the background's (priority above 0: mirrored traffic).

They never share a step, so a mirror makes no user's step longer. While users' requests run, the
background steps only in the share of the time it is owed, and always in chunks so small that a user
who arrives in the middle of one hardly notices: what a mirrored request costs a user is bounded by
what is owed and by one chunk, however much is mirrored (G8).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Many

from services.serving.engine.sequence import Sequence

OWED = 0.02
"""The background's share of the time while users' requests run: it must not starve either."""
BACKGROUND_TOKENS = 8
"""Prompt tokens of a background step, which takes little longer than one that decodes."""


class Turns:
    """Chooses the sequences of each step, and keeps the account of who waited how long."""

    def __init__(self, owed: float = OWED, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`owed` is seconds for the background per second of users beside it."""
        self._owed = owed
        self._clock = clock
        self._began: float | None = None
        self._was_background = False
        self._owed_s = 0.0
        self._last_background_s = 0.0

    def next(self, running: Many[Sequence], budget: int) -> tuple[list[Sequence], int]:
        """The sequences of the next step and its budget of prompt tokens.

        To be asked right before each step, for a step lasts until the next is asked for.
        """
        now = self._clock()
        users = [s for s in running if s.request.priority <= 0]
        background = [s for s in running if s.request.priority > 0]
        self._account(now, bool(users and background))
        theirs = not users or (bool(background) and self._owed_s > self._last_background_s)
        chosen, paused = (background, users) if theirs else (users, background)
        for sequence in chosen:
            sequence.resume(now)
        for sequence in paused:
            sequence.pause(now)
        self._was_background = theirs
        return chosen, min(budget, BACKGROUND_TOKENS + len(background)) if theirs else budget

    def rest(self) -> None:
        """Nothing runs: the time up to the next step is nobody's."""
        self._began = None
        self._owed_s = 0.0

    def _account(self, now: float, contended: bool) -> None:
        """The step that ends now is paid for, or earns the background its share."""
        if self._began is not None:
            took = now - self._began
            if self._was_background:
                self._last_background_s = took
                self._owed_s = max(0.0, self._owed_s - took)
            elif contended:
                self._owed_s += self._owed * took
        self._began = now

"""Free pages as runs of neighbours, each as long as it can be.

Single pages come from the low end and long runs from the high end, so that what needs neighbours
finds them.
"""

from __future__ import annotations

from bisect import bisect_left


class FreePages:
    """Which of the pages `[0, pages)` are free; all of them at first."""

    def __init__(self, pages: int) -> None:
        self._starts = [0] if pages else []
        self._lengths = {0: pages} if pages else {}
        self.count = pages

    def take(self, length: int) -> int | None:
        """The first of `length` neighbouring pages that are free no longer; None if none are."""
        at = self._place(length)
        if at is None:
            return None
        start = self._starts[at]
        rest = self._lengths.pop(start) - length
        if length == 1 and rest:
            self._starts[at] = start + 1
            self._lengths[start + 1] = rest
        elif rest:
            self._lengths[start] = rest
            start += rest
        else:
            del self._starts[at]
        self.count -= length
        return start

    def give(self, start: int, length: int) -> None:
        """Pages `[start, start + length)` are free again.

        Raises:
            ValueError: one of them is free already.

        """
        at = bisect_left(self._starts, start)
        before = self._starts[at - 1] if at else None
        after = self._starts[at] if at < len(self._starts) else None
        before_ends = before + self._lengths[before] if before is not None else 0
        if before_ends > start or (after is not None and after < start + length):
            raise ValueError(f"pages {start} to {start + length - 1} are free in part already")
        self.count += length
        if after == start + length:
            length += self._lengths.pop(after)
            del self._starts[at]
        if before is not None and before_ends == start:
            self._lengths[before] += length
        else:
            self._starts.insert(at, start)
            self._lengths[start] = length

    def _place(self, length: int) -> int | None:
        if length == 1:
            return 0 if self._starts else None
        for at in range(len(self._starts) - 1, -1, -1):
            if self._lengths[self._starts[at]] >= length:
                return at
        return None

    def runs(self) -> list[tuple[int, int]]:
        """(first page, length) of each run, in order; no two are neighbours."""
        return [(start, self._lengths[start]) for start in self._starts]

"""How an adapter's weights lie in runs of neighbouring pages.

Kernels read each weight as one piece of memory, so a weight must not be torn apart; an adapter may
be. A run ends once it holds `LEAST` pages, and what is shorter joins the run before it: less than
one page in `LEAST` is wasted, and no run is much longer than a small part of the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 20
"""Pages of a run at least, where there are as many: at most 5 % of it is waste."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where each of some pieces lies."""

    runs: tuple[int, ...]
    """Pages of each run."""
    places: tuple[tuple[int, int], ...]
    """Of each piece: (run, byte in it)."""
    filled: int
    """Bytes of all pieces, their alignment included."""

    @classmethod
    def of(cls, sizes: Sequence[int], *, page_bytes: int, alignment: int) -> Packing:
        """Pack pieces of `sizes` bytes in their order; each begins at a multiple of `alignment`."""
        lengths = [0]
        places: list[tuple[int, int]] = []
        for size in sizes:
            if lengths[-1] >= LEAST * page_bytes:
                lengths.append(0)
            places.append((len(lengths) - 1, lengths[-1]))
            lengths[-1] += -(-size // alignment) * alignment
        if len(lengths) > 1 and lengths[-1] < LEAST * page_bytes:
            last = lengths.pop()
            joined, moved = len(lengths) - 1, lengths[-1]
            places = [(run, at) if run <= joined else (joined, moved + at) for run, at in places]
            lengths[-1] += last
        return cls(
            tuple(-(-length // page_bytes) for length in lengths), tuple(places), sum(lengths)
        )

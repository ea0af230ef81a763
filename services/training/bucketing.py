"""Length-bucketed batches: rows of similar length share a batch, so little is padding.

On a CPU a padded token costs as much as a real one. The order is a pure function of lengths, seed
and epoch, which is what lets a resumed run see exactly the batches the killed one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

POOL_BATCHES = 16
"""Batches whose rows are drawn at random together and then sorted by length."""
PART_TOKENS = 1024
"""Padded tokens of a part: enough to keep a CPU's matrix products efficient."""


def bucketed_order(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
    """Every index once, so that consecutive runs of `batch_size` have similar lengths.

    Rows are shuffled, sorted by length within pools of `POOL_BATCHES` batches, cut into batches,
    and the batches shuffled. A last, short batch stays last: it must not shift the others' edges.
    """
    rng = random.Random(f"{seed}/{epoch}")
    shuffled = list(range(len(lengths)))
    rng.shuffle(shuffled)
    pool = POOL_BATCHES * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), pool):
        members = sorted(shuffled[start : start + pool], key=lambda i: -lengths[i])
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    short = [batch for batch in batches if len(batch) < batch_size]
    full = [batch for batch in batches if len(batch) == batch_size]
    rng.shuffle(full)
    return [index for batch in full + short for index in batch]


def parts(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """A batch's rows in parts that hold at most `most_tokens` each, padding included.

    Longest first, so that each part is padded to less than the one before. A row longer than
    `most_tokens` is a part of its own.
    """
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= most_tokens:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def largest_part(
    sizes: Iterable[tuple[int, int]], batch_size: int, most_tokens: int
) -> tuple[int, int]:
    """At most how many tokens, and how many scored ones, `parts` puts into one part.

    `sizes` are (tokens, scored tokens) of the rows, of which any `batch_size` may meet. A part
    whose longest row has n tokens has at most `most_tokens` / n rows, each scored no more than any
    row of up to n tokens.
    """
    tokens = scored = most = 0
    for length, of_these in sorted(sizes):
        most = max(most, of_these)
        rows = min(batch_size, max(1, most_tokens // length))
        tokens, scored = max(tokens, rows * length), max(scored, rows * most)
    return tokens, scored


def padded_share(lengths: Sequence[int], order: Sequence[int], batch_size: int) -> float:
    """The share of a pass's tokens that is padding."""
    padded = sum(
        max(lengths[i] for i in batch) * len(batch)
        for start in range(0, len(order), batch_size)
        if (batch := order[start : start + batch_size])
    )
    return 1 - sum(lengths) / padded if padded else 0.0

"""Is a synthetic set many voices or one? Numbers that need no embedding model (S3).

*distinct-n* (Li et al. 2016): distinct n-grams over all n-grams. *Closeness*: mean over texts of
the highest shingle Jaccard similarity to another text. *Opening share*: how many texts begin with
the commonest two words. A set that trips a limit is a monoculture: an alarm, never a silent drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from shared.similarity.text import shingles, word_ngrams, words

DISTINCT_2_FLOOR = 0.3
CLOSENESS_CEILING = 0.7
OPENING_CEILING = 0.5
STRUCTURE_CEILING = 0.5
COVERAGE_FLOOR = 0.7
FEWEST = 8
"""Below this many texts the alarm has no evidence."""
_SAMPLE = 300


@dataclass(frozen=True, slots=True)
class Diversity:
    """What a set of texts looks like; `alarms` says what makes it a monoculture."""

    texts: int
    distinct_1: float
    distinct_2: float
    closeness: float
    opening_share: float
    alarms: tuple[str, ...] = ()


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams, 0 when there are none."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(word_ngrams(words(text), n))
    total = sum(counts.values())
    return len(counts) / total if total else 0.0


def closeness(texts: Sequence[str]) -> float:
    """Mean highest Jaccard similarity to another text, over an even sample of at most 300."""
    step = max(1, -(-len(texts) // _SAMPLE))
    sets = [frozenset(shingles(text)) for text in texts[::step]]
    if len(sets) < 2:
        return 0.0
    best = [0.0] * len(sets)
    for i, one in enumerate(sets):
        for j in range(i + 1, len(sets)):
            shared = len(one & sets[j])
            similarity = shared / (len(one) + len(sets[j]) - shared)
            best[i], best[j] = max(best[i], similarity), max(best[j], similarity)
    return sum(best) / len(best)


def diversity(texts: Sequence[str]) -> Diversity:
    """Measure a set of accepted requests."""
    openings = Counter(tuple(words(text)[:2]) for text in texts)
    share = openings.most_common(1)[0][1] / len(texts) if texts else 0.0
    one, two, close = distinct_n(texts, 1), distinct_n(texts, 2), closeness(texts)
    alarms = []
    if len(texts) >= FEWEST:
        if two < DISTINCT_2_FLOOR:
            alarms.append(f"monoculture: distinct-2 is {two:.2f}, below {DISTINCT_2_FLOOR}")
        if close > CLOSENESS_CEILING:
            alarms.append(f"monoculture: closeness is {close:.2f}, above {CLOSENESS_CEILING}")
        if share > OPENING_CEILING:
            alarms.append(f"monoculture: {share:.0%} of requests open with the same two words")
    return Diversity(len(texts), one, two, close, share, tuple(alarms))


def program_alarms(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sandbox runs say of verified programs: one algorithm for all, or branches never run."""
    shapes = Counter(tuple(r["shape"]) for r in records if r.get("shape"))
    covered = [float(r["coverage"]) for r in records if "coverage" in r]
    alarms = []
    if shapes.total() >= FEWEST:
        share = shapes.most_common(1)[0][1] / shapes.total()
        if share > STRUCTURE_CEILING:
            alarms.append(f"monoculture: {share:.0%} of programs have the same structure")
    if covered and fmean(covered) < COVERAGE_FLOOR:
        alarms.append(
            f"tests take {fmean(covered):.0%} of the branches of verified programs, "
            f"below {COVERAGE_FLOOR:.0%}"
        )
    return alarms

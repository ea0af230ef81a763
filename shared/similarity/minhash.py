"""Near-duplicate search: MinHash LSH finds candidates, exact Jaccard decides.

The sketch (rensa) only proposes: bands are chosen so that a pair at the threshold is proposed with
probability at least 0.999, and every proposal is verified on the shingle sets themselves, so the
answer has no false positives.
"""

from __future__ import annotations

import rensa

from shared.similarity.text import shingles

PERMUTATIONS = 128
_RECALL = 0.999


def bands_for(threshold: float) -> int:
    """The fewest bands (a divisor of 128) that propose a pair at `threshold` with p >= 0.999."""
    for rows in (32, 16, 8, 4, 2):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands
    return PERMUTATIONS


class NearDuplicates:
    """An index of texts under string keys; `find` names the most similar one above the threshold.

    Deterministic: fixed permutation seed, ties go to the earlier text.
    """

    def __init__(self, threshold: float, *, seed: int = 7) -> None:
        self._threshold = threshold
        self._seed = seed
        self._lsh = rensa.RMinHashLSH(
            threshold=threshold, num_perm=PERMUTATIONS, num_bands=bands_for(threshold)
        )
        self._keys: list[str] = []
        self._sets: list[frozenset[int]] = []

    def find(self, text: str) -> tuple[str, float] | None:
        """The key and Jaccard similarity of the closest indexed text, or None."""
        sketch, hashed = self._sketch(text)
        return self._closest(sketch, hashed)

    def add(self, key: str, text: str) -> None:
        """Index a text."""
        self._insert(key, *self._sketch(text))

    def find_or_add(self, key: str, text: str) -> tuple[str, float] | None:
        """The closest indexed text; where there is none, index this one and return None."""
        sketch, hashed = self._sketch(text)
        found = self._closest(sketch, hashed)
        if found is None:
            self._insert(key, sketch, hashed)
        return found

    def _sketch(self, text: str) -> tuple[rensa.RMinHash, frozenset[int]]:
        grams = shingles(text)
        sketch = rensa.RMinHash(num_perm=PERMUTATIONS, seed=self._seed)
        sketch.update(grams)
        return sketch, frozenset(rensa.RMinHash.hash_token_sets([grams])[0])

    def _insert(self, key: str, sketch: rensa.RMinHash, hashed: frozenset[int]) -> None:
        self._lsh.insert(len(self._keys), sketch)
        self._keys.append(key)
        self._sets.append(hashed)

    def _closest(self, sketch: rensa.RMinHash, hashed: frozenset[int]) -> tuple[str, float] | None:
        best: tuple[float, int] | None = None
        for index in sorted(set(self._lsh.query(sketch))):
            other = self._sets[index]
            shared = len(hashed & other)
            similarity = shared / (len(hashed) + len(other) - shared)
            if similarity >= self._threshold and (best is None or similarity > best[0]):
                best = (similarity, index)
        return None if best is None else (self._keys[best[1]], best[0])

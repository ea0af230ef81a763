"""Near-duplicate search: MinHash LSH finds candidates, exact Jaccard decides.

The sketch (rensa) only proposes: bands are chosen so that a pair at the threshold is proposed with
probability at least 0.999, and every proposal is verified on the shingle sets themselves, so the
answer has no false positives. The index keeps texts, compressed, and not their shingle sets, which
take fifty times as much: a set is made again for the few texts that are proposed.
"""

from __future__ import annotations

import zlib

import rensa

from shared.similarity.text import shingle_set

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
        self._texts: list[bytes] = []

    def find(self, text: str) -> tuple[str, float] | None:
        """The key and Jaccard similarity of the closest indexed text, or None."""
        grams = shingle_set(text)
        return self._closest(self._sketch(grams), grams)

    def add(self, key: str, text: str) -> None:
        """Index a text."""
        self._insert(key, text, self._sketch(shingle_set(text)))

    def find_or_add(self, key: str, text: str) -> tuple[str, float] | None:
        """The closest indexed text; where there is none, index this one and return None."""
        grams = shingle_set(text)
        sketch = self._sketch(grams)
        found = self._closest(sketch, grams)
        if found is None:
            self._insert(key, text, sketch)
        return found

    def _sketch(self, grams: set[str]) -> rensa.RMinHash:
        sketch = rensa.RMinHash(num_perm=PERMUTATIONS, seed=self._seed)
        sketch.update(list(grams))  # the smallest hash does not depend on the order
        return sketch

    def _insert(self, key: str, text: str, sketch: rensa.RMinHash) -> None:
        self._lsh.insert(len(self._keys), sketch)
        self._keys.append(key)
        self._texts.append(zlib.compress(text.encode("utf-8", "surrogatepass"), 1))

    def _closest(self, sketch: rensa.RMinHash, grams: set[str]) -> tuple[str, float] | None:
        best: tuple[float, int] | None = None
        for index in sorted(set(self._lsh.query(sketch))):
            other = shingle_set(
                zlib.decompress(self._texts[index]).decode("utf-8", "surrogatepass")
            )
            shared = len(grams & other)
            similarity = shared / (len(grams) + len(other) - shared)
            if similarity >= self._threshold and (best is None or similarity > best[0]):
                best = (similarity, index)
        return None if best is None else (self._keys[best[1]], best[0])

"""Near-duplicate search: MinHash LSH finds candidates, exact Jaccard decides.

The sketch (rensa) only proposes: bands are chosen so that a pair at the threshold is proposed with
probability at least 0.999, and every proposal is verified on the shingle sets themselves, so the
answer has no false positives. The index is two tables of SQLite, bands and compressed texts: on
disk it holds any corpus in bounded memory and commits with whatever else its database holds.
Shingle sets, which take fifty times as much, are made only for the few texts that are proposed.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import zlib
from collections.abc import Sequence

import numpy as np
import rensa

from shared.similarity.text import normal_form, shingle_set

MOST_PERMUTATIONS = 144
_RECALL = 0.999
_ODD = np.random.default_rng(7).integers(1 << 62, size=MOST_PERMUTATIONS, dtype=np.uint64) * 2 + 1
_SHINGLE = 5


def banding(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band): a pair at `threshold` is proposed with p >= 0.999.

    Of all that fit into 144 permutations, the longest bands: they propose the fewest other pairs.
    """
    best = (1, 1)
    for rows in range(1, MOST_PERMUTATIONS + 1):
        hit = threshold**rows
        bands = 1 if hit == 1 else math.ceil(math.log(1 - _RECALL) / math.log1p(-hit))
        if bands * rows <= MOST_PERMUTATIONS:
            best = bands, rows
    return best


class NearDuplicates:
    """An index of texts under string keys; `find` names the most similar one above the threshold.

    Deterministic: fixed permutation seed, ties go to the earlier text. Texts are compared only with
    those indexed under the same `apart`.
    """

    def __init__(
        self, threshold: float, db: sqlite3.Connection | None = None, *, name: str = "near"
    ) -> None:
        self._threshold = threshold
        self._bands, self._rows = banding(threshold)
        if db is None:
            db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db = db
        self._texts, self._index = f"{name}_texts", f"{name}_bands"
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {self._texts}"
            " (doc INTEGER PRIMARY KEY, key TEXT, apart BLOB, text BLOB)"
        )
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {self._index}"
            " (band INTEGER, doc INTEGER, PRIMARY KEY (band, doc)) WITHOUT ROWID"
        )

    def keys(self, texts: Sequence[str], aparts: Sequence[str]) -> np.ndarray:
        """The band keys of texts, int64, [texts, bands]: who shares one is proposed."""
        if not texts:
            return np.zeros((0, self._bands), dtype=np.int64)
        grams = [_hashed(text) for text in texts]
        ends = np.cumsum([0, *map(len, grams)], dtype=np.uint64)
        sketch = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(grams), ends, num_perm=self._bands * self._rows, seed=7
        )
        slots = np.array(sketch.to_rows(), dtype=np.uint64)
        slots = slots.reshape(len(texts), self._bands, self._rows)
        mixed = (slots * _ODD[: self._rows]).sum(axis=2, dtype=np.uint64)
        groups = np.frombuffer(b"".join(map(_group, aparts)), dtype=np.uint64)
        mixed ^= groups[:, None]
        mixed = (mixed + np.arange(self._bands, dtype=np.uint64)) * _ODD[-1]
        found: np.ndarray = (mixed ^ (mixed >> np.uint64(29))).view(np.int64)
        return found

    def find(self, text: str, apart: str = "") -> tuple[str, float] | None:
        """The key and Jaccard similarity of the closest indexed text, or None."""
        return self._closest(self._keys(text, apart), text, _group(apart))

    def add(self, key: str, text: str, apart: str = "") -> None:
        """Index a text."""
        self._insert(key, text, self._keys(text, apart), _group(apart))

    def find_or_add(
        self, key: str, text: str, apart: str = "", keys: list[int] | None = None
    ) -> tuple[str, float] | None:
        """The closest indexed text; where there is none, index this one and return None.

        `keys` are the text's band keys, without those that no other text has, where they are known.
        """
        keys, group = self._keys(text, apart) if keys is None else keys, _group(apart)
        found = self._closest(keys, text, group)
        if found is None:
            self._insert(key, text, keys, group)
        return found

    def _keys(self, text: str, apart: str) -> list[int]:
        keys: list[int] = self.keys([text], [apart])[0].tolist()
        return keys

    def _insert(self, key: str, text: str, keys: list[int], group: bytes) -> None:
        packed = zlib.compress(text.encode("utf-8", "surrogatepass"), 1)
        insert = f"INSERT INTO {self._texts} (key, apart, text) VALUES (?, ?, ?)"
        doc = self._db.execute(insert, (key, group, packed)).lastrowid
        self._db.executemany(
            f"INSERT OR IGNORE INTO {self._index} VALUES (?, ?)", [(band, doc) for band in keys]
        )

    def _closest(self, keys: list[int], text: str, group: bytes) -> tuple[str, float] | None:
        places = ", ".join("?" * len(keys))
        query = f"SELECT DISTINCT doc FROM {self._index} WHERE band IN ({places})"
        docs = sorted(doc for (doc,) in self._db.execute(query, keys))
        grams = shingle_set(text, _SHINGLE) if docs else set()
        best: tuple[float, str] | None = None
        for doc in docs:
            key, own, packed = self._db.execute(
                f"SELECT key, apart, text FROM {self._texts} WHERE doc = ?", (doc,)
            ).fetchone()
            if own != group:
                continue
            other = shingle_set(zlib.decompress(packed).decode("utf-8", "surrogatepass"), _SHINGLE)
            shared = len(grams & other)
            similarity = shared / (len(grams) + len(other) - shared)
            if similarity >= self._threshold and (best is None or similarity > best[0]):
                best = similarity, key
        return None if best is None else (best[1], best[0])


def _hashed(text: str) -> np.ndarray:
    """The shingles of a text as 64-bit numbers, uint64, at least one; they may repeat."""
    normal = normal_form(text)
    if normal.isascii():
        codes = np.frombuffer(normal.encode(), np.uint8).astype(np.uint64)
    else:
        raw = normal.encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(raw, np.uint32).astype(np.uint64)
    width = min(_SHINGLE, len(codes))
    mixed = np.zeros(max(1, len(codes) - width + 1), dtype=np.uint64)
    for place in range(width):
        mixed *= _ODD[0]
        mixed += codes[place : place + len(mixed)]
    mixed *= _ODD[1]
    return mixed ^ (mixed >> np.uint64(32))


def _group(apart: str) -> bytes:
    return hashlib.blake2b(apart.encode("utf-8", "surrogatepass"), digest_size=8).digest()

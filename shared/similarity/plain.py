"""Closeness without a model: hashed words and pairs of neighbours, as vectors of length one.

The fallback where the packaged embedding model is not installed. It knows words, not what they
mean: a paraphrase looks further away than it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from shared.similarity.text import word_ngrams, words

WIDTH = 1024


class HashedWords:
    """`Embedder` by feature hashing (Weinberger et al. 2009); signs let collisions cancel."""

    name = "hashed words, no model"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32, [texts, 1024]; a text without a word is the zero vector."""
        found = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for place, text in enumerate(texts):
            tokens = words(text)
            for feature in (*tokens, *(" ".join(pair) for pair in word_ngrams(tokens, 2))):
                hashed = zlib.crc32(feature.encode())
                found[place, hashed % WIDTH] += 1.0 if hashed & 0x8000_0000 else -1.0
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(lengths > 0, lengths, 1)

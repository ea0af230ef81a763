"""Texts that mean the same in other words: unit vectors, and cosine as closeness.

An *embedder* turns texts into vectors of length one; the packaged one is all-MiniLM-L6-v2
(`shared.similarity.adapters.minilm`). Search is exact: a matrix product over blocks, no index that
could miss a neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

_BLOCK = 1024


class Embedder(Protocol):
    """Turns texts into meaning."""

    name: str
    """Model and version, for the dataset card."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One row of length 1 for each text, float32, [texts, width]."""
        ...


class Meanings:
    """An index of texts under string keys, searched by cosine."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._blocks: list[np.ndarray] = []
        self._open: list[np.ndarray] = []

    def add(self, key: str, vector: np.ndarray) -> None:
        self._keys.append(key)
        self._open.append(vector)
        if len(self._open) == _BLOCK:
            self._blocks.append(np.stack(self._open))
            self._open = []

    def closest(self, vector: np.ndarray, threshold: float) -> tuple[str, float] | None:
        """The nearest text at or above `threshold`, the earlier of two; None where none is."""
        best: tuple[str, float] | None = None
        blocks = [*self._blocks, *([np.stack(self._open)] if self._open else [])]
        at = 0
        for block in blocks:
            scores = block @ vector
            index = int(scores.argmax())
            score = float(scores[index])
            if score >= threshold and (best is None or score > best[1]):
                best = self._keys[at + index], score
            at += len(block)
        return best

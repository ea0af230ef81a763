"""Texts end to end in blocks of one length: no token is padding (continued pretraining). Pure.

Neighbouring blocks share one token, the last of one and the first of the next. So every token but
the very first is predicted once, also at the edges. As in GPT-3's training (Brown et al., 2020,
arXiv:2005.14165, section B), attention is not stopped at a text's end: its end token says it.
"""

from __future__ import annotations

from collections.abc import Iterable


def packed(texts: Iterable[list[int]], length: int) -> list[list[int]]:
    """The tokens of `texts`, in order, in blocks of `length`; the last one may be shorter.

    Raises ValueError for a length below 2, of which nothing can be predicted.
    """
    if length < 2:
        raise ValueError(f"a block of {length} tokens predicts nothing")
    tokens = [token for text in texts for token in text]
    return [tokens[start : start + length] for start in range(0, len(tokens) - 1, length - 1)]


def block_count(tokens: int, length: int) -> int:
    """How many blocks `packed` makes of so many tokens."""
    return max(0, -(-(tokens - 1) // (length - 1)))

"""Attention row by row: one query position, a whole cache; decoding rows and short prompts.

The cache lies in pages of C positions, anywhere in the pool; a table says which page holds which
positions of a sequence. Shape suffixes: T rows of the step, N rows meant, S slots (rows of the
table), P pages, K key-value heads, G query heads per key-value head, C positions of a page, M pages
of the longest sequence, L positions, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary position tables (arXiv:2104.09864): `rotated = x·cos + roll(x, D/2)·sin`.

    The sign of rotate-half is folded into `sin_LD`.
    """

    cos_LD: Tensor
    sin_LD: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of the step are meant, and each row's position and slot. All int64.

    Rows of one sequence may be several; keys and values of all are written before any are read.
    """

    decode_N: Tensor
    positions_T: Tensor
    slots_T: Tensor


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`attend(qkv, pages, table, out)`: for each row meant, in one layer, with

    keys[position] = pages[table[slot, position // C], 0, :, position % C], values likewise at 1:

    q, k = rotate(q), rotate(k);  keys[position] = k;  values[position] = v
    out[row] = softmax(q · keys[:position + 1]ᵀ / √D) · values[:position + 1]

qkv is (T, K·G + 2·K, D), before rotation; pages is (P, 2, K, C, D) and is written; table is (S, M)
int32; out is (T, K·G, D), of which only those rows are written. Other rows are not looked
at, nor are positions after a row's own: what lies there may be anything.
"""


def implementation(name: str) -> Callable[[Rotary, Rows], Attend]:
    """The named implementation; it binds a step's rows, for every layer.

    `reference` is plain torch; `native` is compiled C++ for CPUs.

    Raises:
        ValueError: there is none of this name.
        NativeUnavailable: `native` cannot be compiled or loaded here.
    """
    if name == "reference":
        from kernels.attention.reference import prepare

        return prepare
    if name == "native":
        from kernels.attention.native import Native

        return Native().prepare
    raise ValueError(f"no attention implementation {name!r}; there is reference, native")

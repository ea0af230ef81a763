"""Attention of rows that hold their sequence's newest token: one query position, a whole cache.

Shape suffixes: T rows of the step, N decoding rows, S slots, K key-value heads, G query heads per
key-value head, L cached positions, D head size.
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
    """Which rows of the step decode, and where each row's sequence stands. All int64."""

    decode_N: Tensor
    positions_T: Tensor
    slots_T: Tensor


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`attend(qkv, keys, values, out)`: for each decoding row, in one layer:

    q, k = rotate(q), rotate(k);  keys[slot, :, position] = k;  values[slot, :, position] = v
    out[row] = softmax(q · keys[slot, :, :position + 1]ᵀ / √D) · values[slot, :, :position + 1]

qkv is (T, K·G + 2·K, D), before rotation; keys and values are (S, K, L, D) and are written; out is
(T, K·G, D), of which only the decoding rows are written. Other rows are not looked at.
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

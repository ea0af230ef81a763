"""Products on CPUs: our kernel on the matrix unit (`kernels/native/products.cpp`), or oneDNN's.

Both pack a weight once. Ours is what decoding wants, where a product takes as long as its weight
takes to be read; with the rows of prompts the two are alike (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.linear import reference
from kernels.linear.api import Linear
from kernels.native import library

_STRIP, _DEPTH = 32, 32
"""Outputs and inputs of the two tiles that lie side by side."""


class Native:
    """Raises NativeUnavailable when the kernels cannot be had."""

    def __init__(self, *, tiles: bool = True) -> None:
        """`tiles` allows the processor's matrix unit, where it has one."""
        available = library().product_available
        available.restype = ctypes.c_bool
        self._product = library().product_bfloat16
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._product.argtypes = [pointer, number, pointer, number, number, pointer]
        self._product.restype = None
        self._tiles = tiles and bool(available())

    def prepare(self, weight: Tensor) -> Linear:
        """See `kernels.linear.api`."""
        if self._tiles and weight.dtype == torch.bfloat16 and weight.shape[1] % _DEPTH == 0:
            return self._on_tiles(weight)
        return _onednn(weight) if packing_available() else reference.prepare(weight)

    def _on_tiles(self, weight: Tensor) -> Linear:
        (d, k), product = weight.shape, self._product
        packed = pack(weight)
        address = packed.data_ptr()

        def apply(x: Tensor) -> Tensor:
            if x.dtype != torch.bfloat16 or x.shape[1] != k or not x.is_contiguous():
                raise ValueError(f"contiguous bf16 rows of {k} wanted, not {x.dtype} {x.shape}")
            y = x.new_empty(x.shape[0], d)
            product(y.data_ptr(), d, x.data_ptr(), k, x.shape[0], address)
            return y

        apply.holds = packed  # type: ignore[attr-defined]
        return apply


def pack(weight: Tensor) -> Tensor:
    """(d, k) bf16 → (⌈d/32⌉, k/32, 2, 16, 16, 2): strips of 32 outputs, whose tiles hold pairs.

    Tile h of a strip has outputs 16h to 16h + 15; its row p holds inputs 2p and 2p + 1 of each.
    """
    d, k = weight.shape
    strips, depth = -(-d // _STRIP), k // _DEPTH
    filled = weight.new_zeros(strips * _STRIP, k)
    filled[:d] = weight
    return filled.view(strips, 2, 16, depth, 16, 2).permute(0, 3, 1, 4, 2, 5).contiguous()


def packing_available() -> bool:
    """Whether this build has oneDNN with its packing operators."""
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def _onednn(weight: Tensor) -> Linear:
    # one overload, so that no call has to choose among them
    product = torch.ops.mkldnn._linear_pointwise.default
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)

    def apply(x: Tensor) -> Tensor:
        y: Tensor = product(x, packed, None, "none", [], "")
        return y

    return apply

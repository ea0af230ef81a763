"""SGMV in C++ for CPUs (`kernels/native/kernels.cpp`).

A batch becomes one table of addresses, built when the batch changes; a call passes that table. Long
segments (a prompt's rows) are matrix products that torch does best, so they go to the reference;
decoding rows, where reading each adapter's weights once is the whole cost, go to the kernel.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from kernels.lora import reference
from kernels.lora.api import Apply, LowRank, SegmentPlan, scale
from kernels.native import library

LONGEST = 16
"""Rows of a segment up to which the kernel is faster than two matrix products."""
_BLOCKS = 3
_FIELDS = 7 + 5 * _BLOCKS
_NAMES = {torch.float32: "sgmv_float32", torch.bfloat16: "sgmv_bfloat16"}
Kinds = tuple[torch.dtype, torch.dtype]
"""Of the rows, and of the weights."""


class Native:
    """Raises NativeUnavailable when the kernels cannot be had."""

    def __init__(self) -> None:
        self._functions: dict[Kinds, Any] = {}
        kinds: dict[Kinds, str] = {(dtype, dtype): name for dtype, name in _NAMES.items()}
        kinds |= {(dtype, torch.int8): f"{name}_int8" for dtype, name in _NAMES.items()}
        for kind, name in kinds.items():
            function = getattr(library(), name)
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            function.argtypes = [pointer, number, pointer, number, number, number]
            function.argtypes += [pointer, number, pointer, number]
            function.restype = None
            self._functions[kind] = function

    def prepare(self, plan: SegmentPlan, weights: Sequence[LowRank | None]) -> Apply:
        """See `kernels.lora.api.sgmv_`, whose docstring is the specification."""
        pairs = list(zip(plan.segments, weights, strict=True))
        short = [
            (segment, low_rank)
            for segment, low_rank in pairs
            if low_rank is not None and 0 < segment.stop - segment.start <= LONGEST
        ]
        long = [w if s.stop - s.start > LONGEST else None for s, w in pairs]
        rest = reference.prepare(plan, long) if any(w is not None for w in long) else None
        if not short:
            return rest or (lambda _y, _x: None)
        stored = short[0][1].a.dtype
        if any(low_rank.a.dtype != stored for _, low_rank in short):
            raise ValueError("the adapters of one batch must be stored alike")
        held = [_laid_out(low_rank) for _, low_rank in short]
        table = np.array(
            [
                _row(segment.start, segment.stop, low_rank, blocks)
                for (segment, _), (low_rank, blocks) in zip(short, held, strict=True)
            ],
            dtype=np.int64,
        )
        ranks = max(low_rank.a.shape[0] for low_rank, _ in held)
        scratch = torch.empty(plan.rows * (short[0][1].a.shape[1] + ranks), dtype=torch.float32)
        functions, address, count = self._functions, table.ctypes.data, len(short)

        def apply(y: torch.Tensor, x: torch.Tensor) -> None:
            function = functions.get((x.dtype, stored))
            if function is None or y.dtype != x.dtype or y.stride(1) != 1 or x.stride(1) != 1:
                raise ValueError(
                    f"contiguous rows of one type that goes with {stored} weights wanted, not "
                    f"{y.dtype} and {x.dtype}"
                )
            function(
                y.data_ptr(),
                y.stride(0),
                x.data_ptr(),
                x.stride(0),
                x.shape[0],
                x.shape[1],
                address,
                count,
                scratch.data_ptr(),
                ranks,
            )
            if rest is not None:
                rest(y, x)

        # the table holds addresses: what they point to lives as long as it does
        apply.holds = (table, held)  # type: ignore[attr-defined]
        return apply


def _laid_out(low_rank: LowRank) -> tuple[LowRank, list[torch.Tensor]]:
    """The weights, and each block's B as (rank, width) in memory; copied only if it is not."""
    if len(low_rank.blocks) > _BLOCKS:
        raise ValueError(f"at most {_BLOCKS} linears are fused, not {len(low_rank.blocks)}")
    if not low_rank.a.is_contiguous():
        raise ValueError("A must be contiguous")
    return low_rank, [block.b.t().contiguous() for block in low_rank.blocks]


def _row(start: int, stop: int, low_rank: LowRank, laid_out: list[torch.Tensor]) -> list[int]:
    """`struct Low` of kernels.cpp."""
    (bits,) = struct.unpack("q", struct.pack("d", scale(low_rank)))
    row = [start, stop, low_rank.a.data_ptr(), low_rank.a.shape[0], bits]
    row += [0 if low_rank.factors is None else low_rank.factors.data_ptr(), len(laid_out)]
    for block, b in zip(low_rank.blocks, laid_out, strict=True):
        row += [block.column, block.row, b.shape[1], b.shape[0], b.data_ptr()]
    return row + [0] * (_FIELDS - len(row))

"""SGMV in C++ for CPUs (`kernels/native/lora.cpp` and `prompts.cpp`).

A batch becomes tables of addresses, built when the batch changes; a call passes them. Decoding
rows, where reading each adapter's weights once is the whole cost, and a prompt's rows, where the
products are, have a kernel each. Where one segment is long enough that the products alone count,
torch's own are the faster ones and take it (`longest`).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from kernels.lora.api import Apply, LowRank, Segment, SegmentPlan, scale
from kernels.lora.reference import Part
from kernels.lora.reference import apply as by_torch
from kernels.native import library

SHORT = 16
"""Rows of a segment up to which the kernel of decoding rows is the faster one."""
LONGEST = {torch.bfloat16: 512, torch.float32: 256}
"""Rows of a segment, by their type, up to which our kernel is the faster one (RESULTS.md)."""
_BLOCKS = 3
_FIELDS = 7 + 5 * _BLOCKS
_NAMES = {
    (torch.float32, torch.float32): "float32",
    (torch.float32, torch.int8): "float32_int8",
    (torch.bfloat16, torch.bfloat16): "bfloat16",
    (torch.bfloat16, torch.int8): "bfloat16_int8",
}
Kinds = tuple[torch.dtype, torch.dtype]
"""Of the rows, and of the weights."""


class Native:
    """Raises NativeUnavailable when the kernels cannot be had."""

    def __init__(self, *, tiles: bool = True, longest: Mapping[torch.dtype, int] = LONGEST) -> None:
        """`tiles` allows the processor's matrix unit for a prompt's rows, where it has one.

        A segment of more than `longest` rows goes through torch's products.
        """
        self._longest = longest
        self._few: dict[Kinds, Any] = {}
        self._many: dict[Kinds, Any] = {}
        self._tiles = tiles
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        rows = [pointer, number, pointer, number]
        for kinds, name in _NAMES.items():
            few, many = (getattr(library(), f"sgmv_{how}{name}") for how in ("", "long_"))
            few.argtypes = [*rows, number, number, pointer, number, pointer, number]
            many.argtypes = [*rows, number, pointer, number, ctypes.c_bool]
            few.restype = many.restype = None
            self._few[kinds], self._many[kinds] = few, many

    def prepare(self, plan: SegmentPlan, weights: Sequence[LowRank | None]) -> Apply:
        """See `kernels.lora.api.sgmv_`, whose docstring is the specification."""
        used = [
            (segment, low_rank)
            for segment, low_rank in zip(plan.segments, weights, strict=True)
            if low_rank is not None and segment.start < segment.stop
        ]
        if not used:
            return lambda _y, _x: None
        stored = used[0][1].a.dtype
        if any(low_rank.a.dtype != stored for _, low_rank in used):
            raise ValueError("the adapters of one batch must be stored alike")
        held = [(segment, low_rank, _laid_out(low_rank)) for segment, low_rank in used]
        few = _Table.of([one for one in held if _length(one[0]) <= SHORT])

        @cache
        def split(longest: int) -> tuple[_Table, list[Part]]:
            many = [one for one in held if SHORT < _length(one[0]) <= longest]
            return _Table.of(many), [one for one in used if _length(one[0]) > longest]

        scratch = torch.empty(
            plan.rows * (used[0][1].a.shape[1] + few.ranks) if few.segments else 0,
            dtype=torch.float32,
        )

        def apply(y: torch.Tensor, x: torch.Tensor) -> None:
            kinds = (x.dtype, stored)
            if kinds not in _NAMES or y.dtype != x.dtype or y.stride(1) != 1 or x.stride(1) != 1:
                raise ValueError(
                    f"contiguous rows of one type that goes with {stored} weights wanted, not "
                    f"{y.dtype} and {x.dtype}"
                )
            rows = (y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0))
            if few.segments:
                size, room = x.shape, scratch.data_ptr()
                self._few[kinds](*rows, *size, few.address, few.segments, room, few.ranks)
            many, rest = split(self._longest[x.dtype])
            if many.segments:
                self._many[kinds](*rows, x.shape[1], many.address, many.segments, self._tiles)
            by_torch(rest, y, x)

        # the tables hold addresses: what they point to lives as long as they do
        apply.holds = held  # type: ignore[attr-defined]
        return apply


Held = tuple[Segment, LowRank, list[torch.Tensor]]
"""And each block's B as (rank, width) in memory."""


def _length(segment: Segment) -> int:
    return segment.stop - segment.start


@dataclass(frozen=True, slots=True)
class _Table:
    """`struct Low` of lora.h, one a segment."""

    values: np.ndarray[Any, Any]
    ranks: int
    """Of the adapter with most."""

    @classmethod
    def of(cls, held: Sequence[Held]) -> _Table:
        return cls(
            np.array([_row(*one) for one in held], dtype=np.int64),
            max((low_rank.a.shape[0] for _, low_rank, _ in held), default=0),
        )

    @property
    def segments(self) -> int:
        return len(self.values)

    @property
    def address(self) -> int:
        return self.values.ctypes.data


def _laid_out(low_rank: LowRank) -> list[torch.Tensor]:
    """Each block's B as (rank, width) in memory; copied only if it is not."""
    if len(low_rank.blocks) > _BLOCKS:
        raise ValueError(f"at most {_BLOCKS} linears are fused, not {len(low_rank.blocks)}")
    if not low_rank.a.is_contiguous():
        raise ValueError("A must be contiguous")
    return [block.b.t().contiguous() for block in low_rank.blocks]


def _row(segment: Segment, low_rank: LowRank, laid_out: list[torch.Tensor]) -> list[int]:
    (bits,) = struct.unpack("q", struct.pack("d", scale(low_rank)))
    row = [segment.start, segment.stop, low_rank.a.data_ptr(), low_rank.a.shape[0], bits]
    row += [0 if low_rank.factors is None else low_rank.factors.data_ptr(), len(laid_out)]
    for block, b in zip(low_rank.blocks, laid_out, strict=True):
        row += [block.column, block.row, b.shape[1], b.shape[0], b.data_ptr()]
    return row + [0] * (_FIELDS - len(row))

"""SGMV in Triton for GPUs: a shrink and an expand, each one launch over a flat list of work.

`prepare` cuts every segment into tiles of rows × ranks (shrink) and rows × columns (expand) and
writes them into one table of addresses. An adapter of rank r gets ⌈r / 16⌉ tiles: the only padding
is that of the last dot tile, in registers. Between the launches X·Aᵀ rests in fp32.

With TRITON_INTERPRET=1 set before this module is imported it runs on CPU tensors, for tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from kernels.lora.api import Apply, LowRank, SegmentPlan, scale

ROWS = 16
RANKS = 16
COLUMNS = 64
DEPTH = 64
"""Tile sides: 16 is the smallest that `tl.dot` takes."""
_SHRINK_FIELDS = tl.constexpr(5)
_EXPAND_FIELDS = tl.constexpr(8)


@triton.jit
def shrink(  # type: ignore[no-untyped-def]
    x,
    x_stride,
    scratch,
    scratch_stride,
    work,
    k,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    DEPTH: tl.constexpr,
    ALIGNED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """`scratch[rows, ranks] = X[rows] · A[ranks]ᵀ`; work: start, stop, address of A, rank, R."""
    item = work + tl.program_id(0) * _SHRINK_FIELDS
    start, stop = tl.load(item), tl.load(item + 1)
    a = tl.load(item + 2).to(tl.pointer_type(x.dtype.element_ty))
    if ALIGNED:
        a = tl.multiple_of(a, 16)
    rows = start + tl.arange(0, ROWS)
    ranks = tl.load(item + 3) + tl.arange(0, RANKS)
    in_rows, in_ranks = rows < stop, ranks < tl.load(item + 4)
    total = tl.zeros((ROWS, RANKS), dtype=tl.float32)
    for depth in range(0, k, DEPTH):
        at = depth + tl.arange(0, DEPTH)
        x_tile = tl.load(
            x + rows[:, None] * x_stride + at[None, :],
            mask=in_rows[:, None] & (at[None, :] < k),
            other=0.0,
        )
        a_tile = tl.load(
            a + ranks[None, :] * k + at[:, None],
            mask=in_ranks[None, :] & (at[:, None] < k),
            other=0.0,
        )
        if UPCAST:
            x_tile, a_tile = x_tile.to(tl.float32), a_tile.to(tl.float32)
        total = tl.dot(x_tile, a_tile, total, input_precision="ieee")
    out = scratch + rows[:, None] * scratch_stride + ranks[None, :]
    tl.store(out, total, mask=in_rows[:, None] & in_ranks[None, :])


@triton.jit
def expand(  # type: ignore[no-untyped-def]
    y,
    y_stride,
    scratch,
    scratch_stride,
    work,
    scales,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ALIGNED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """`Y[rows, columns] += scale · scratch[rows, ranks] · Bᵀ`, B stored rank by rank.

    work: start, stop, address of Bᵀ (r, d), its first rank in scratch, r, first column of the tile,
    d, the column of Y where the block begins.
    """
    program = tl.program_id(0)
    item = work + program * _EXPAND_FIELDS
    start, stop = tl.load(item), tl.load(item + 1)
    b = tl.load(item + 2).to(tl.pointer_type(y.dtype.element_ty))
    if ALIGNED:
        b = tl.multiple_of(b, 16)
    row, rank = tl.load(item + 3), tl.load(item + 4)
    first = tl.multiple_of(tl.load(item + 5), 16)
    d, column = tl.load(item + 6), tl.load(item + 7)
    if ALIGNED:
        d = tl.multiple_of(d, 16)
    rows = start + tl.arange(0, ROWS)
    columns = first + tl.arange(0, COLUMNS)
    in_rows, in_columns = rows < stop, columns < d
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for at in range(0, rank, RANKS):
        ranks = at + tl.arange(0, RANKS)
        part = tl.load(
            scratch + rows[:, None] * scratch_stride + row + ranks[None, :],
            mask=in_rows[:, None] & (ranks[None, :] < rank),
            other=0.0,
        )
        b_tile = tl.load(
            b + ranks[:, None] * d + columns[None, :],
            mask=(ranks[:, None] < rank) & in_columns[None, :],
            other=0.0,
        )
        if UPCAST:
            b_tile = b_tile.to(tl.float32)
        total = tl.dot(part.to(b_tile.dtype), b_tile, total, input_precision="ieee")
    out = y + rows[:, None] * y_stride + column + columns[None, :]
    mask = in_rows[:, None] & in_columns[None, :]
    total = tl.load(out, mask=mask, other=0.0).to(tl.float32) + tl.load(scales + program) * total
    tl.store(out, total.to(y.dtype.element_ty), mask=mask)


class TritonUnavailable(RuntimeError):
    """There is no GPU to run on, and the interpreter was not asked for."""


def prepare(plan: SegmentPlan, weights: Sequence[LowRank | None]) -> Apply:
    """See `kernels.lora.api.sgmv_`, whose docstring is the specification.

    Raises:
        TritonUnavailable: no GPU, and TRITON_INTERPRET was not set at import.

    """
    interpreted = not isinstance(shrink, triton.JITFunction)
    if not (interpreted or torch.cuda.is_available()):
        raise TritonUnavailable("Triton wants a GPU; TRITON_INTERPRET=1 runs it on CPU, for tests")
    shrinks: list[list[int]] = []
    expands: list[list[int]] = []
    scales: list[float] = []
    held: list[torch.Tensor] = []
    for segment, low_rank in zip(plan.segments, weights, strict=True):
        if low_rank is None:
            continue
        if low_rank.factors is not None:
            raise ValueError("quantized adapters run on the CPU kernels only, not in Triton")
        a, bs = low_rank.a.contiguous(), [block.b.t().contiguous() for block in low_rank.blocks]
        held += [a, *bs]
        for start in range(segment.start, segment.stop, ROWS):
            rows = [start, segment.stop]
            ranks = a.shape[0]
            shrinks += [[*rows, a.data_ptr(), at, ranks] for at in range(0, ranks, RANKS)]
            for block, b in zip(low_rank.blocks, bs, strict=True):
                rank, d = b.shape
                for at in range(0, d, COLUMNS):
                    expands.append([*rows, b.data_ptr(), block.row, rank, at, d, block.column])
                    scales.append(scale(low_rank))
    if not shrinks:
        return lambda _y, _x: None
    dtype, device = held[0].dtype, held[0].device
    if any(t.dtype != dtype or t.device != device for t in held):
        raise ValueError("the adapters of one batch must share dtype and device")
    aligned = all(t.data_ptr() % 16 == 0 and t.shape[1] % 16 == 0 for t in held)
    widest = max(row[4] for row in shrinks)
    shrink_work = torch.tensor(shrinks, dtype=torch.int64, device=device)
    expand_work = torch.tensor(expands, dtype=torch.int64, device=device)
    factors = torch.tensor(scales, dtype=torch.float32, device=device)
    scratch = torch.empty(plan.rows, widest, dtype=torch.float32, device=device)
    # the interpreter's `tl.dot` is wrong in bfloat16
    options = {"ROWS": ROWS, "RANKS": RANKS, "ALIGNED": aligned, "UPCAST": interpreted}

    def apply(y: torch.Tensor, x: torch.Tensor) -> None:
        if y.dtype != dtype or x.dtype != dtype or y.stride(1) != 1 or x.stride(1) != 1:
            raise ValueError(f"rows of {dtype} wanted, contiguous, not {y.dtype} and {x.dtype}")
        between = (scratch, scratch.stride(0))
        shrink[(len(shrinks),)](
            x, x.stride(0), *between, shrink_work, x.shape[1], DEPTH=DEPTH, **options
        )
        if expands:
            expand[(len(expands),)](
                y, y.stride(0), *between, expand_work, factors, COLUMNS=COLUMNS, **options
            )

    # the tables hold addresses: what they point to lives as long as they do
    apply.holds = held  # type: ignore[attr-defined]
    return apply

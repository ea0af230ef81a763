"""Segmented gather matrix-vector products for low-rank adapters (SGMV; Punica, arXiv:2310.18547).

One batch holds rows that belong to different adapters of different ranks. The base product is one
GEMM over all rows; the adapters add theirs segment by segment, at their true ranks, without padding
and without gathering weights per row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Block:
    """One linear's B inside a fused linear: `b` is (d_i, r_i).

    It reads ranks `[row, row + r_i)` of the stacked A and writes columns `[column, column + d_i)`.
    """

    column: int
    row: int
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class LowRank:
    """An adapter's weights for one (fused) linear.

    `a` is (R, k): the A matrices of the fused linears stacked, R the sum of their ranks. `blocks`
    are their B matrices; a linear without an adapter has none. Quantized weights are int8 (see
    `kernels.lora.quantized`).
    """

    a: torch.Tensor
    blocks: tuple[Block, ...]
    alpha: float
    rank: float
    """What alpha is divided by: r (or √r for rank-stabilized LoRA)."""
    factors: torch.Tensor | None = None
    """(R,) float32: what row i of `a`, times row i of the Bᵀ above each other, stands for."""

    @classmethod
    def single(cls, a: torch.Tensor, b: torch.Tensor, *, alpha: float) -> LowRank:
        """A (r, k) and B (d, r) of one linear."""
        return cls(a, (Block(0, 0, b),), alpha, a.shape[0])


def expand_layout(b: torch.Tensor) -> torch.Tensor:
    """B (d, r) stored rank by rank, as the native kernel reads it; same shape, same values."""
    return b.t().contiguous().t()


def scale(weights: LowRank) -> float:
    """α/r: the only place where it is computed (ERRATA 4)."""
    return weights.alpha / weights.rank


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `[start, stop)` that belong to one adapter."""

    adapter: Hashable | None
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Which rows of a batch belong to which adapter. Rows of one adapter are neighbours.

    Built once per batch change and used by every linear of every layer.
    """

    segments: tuple[Segment, ...]
    rows: int

    @classmethod
    def of(cls, adapters: Sequence[Hashable | None]) -> SegmentPlan:
        """The plan of a batch whose row i belongs to `adapters[i]`.

        Raises:
            ValueError: the rows of one adapter are not neighbours.

        """
        segments: list[Segment] = []
        start = 0
        for row in range(1, len(adapters) + 1):
            if row == len(adapters) or adapters[row] != adapters[start]:
                segments.append(Segment(adapters[start], start, row))
                start = row
        if len({segment.adapter for segment in segments}) != len(segments):
            raise ValueError("rows of one adapter must be neighbours: sort the batch by adapter")
        return cls(tuple(segments), len(adapters))


Apply = Callable[[torch.Tensor, torch.Tensor], None]
"""`apply(y, x)`: SGMV with a plan and weights that are bound already."""

Prepare = Callable[[SegmentPlan, Sequence[LowRank | None]], Apply]
"""Binds a plan and its weights once per batch change; the result serves every step until then."""


def implementation(name: str) -> Prepare:
    """The named implementation.

    `reference` is plain torch and runs anywhere; `native` is compiled C++ for CPUs; `triton` is
    for GPUs.

    Raises:
        ValueError: there is none of this name.
        NativeUnavailable: `native` cannot be compiled or loaded here.
        ImportError: Triton is not installed.

    """
    if name == "reference":
        from kernels.lora.reference import prepare

        return prepare
    if name == "native":
        from kernels.lora.native import Native

        return Native().prepare
    if name == "triton":
        from kernels.lora.triton import prepare

        return prepare
    raise ValueError(f"no SGMV implementation {name!r}; there is reference, native, triton")


def sgmv_(
    y: torch.Tensor,
    x: torch.Tensor,
    plan: SegmentPlan,
    weights: Sequence[LowRank | None],
    *,
    name: str = "reference",
) -> torch.Tensor:
    """For each segment s with weights (A, B, α, r): `Y[s] += (α/r) · (X[s] · Aᵀ) · Bᵀ`, in place.

    Args:
        y: (n, d), the base product; changed in place and returned. Its rows may be strided.
        x: (n, k), the same rows; same dtype and device as `y`.
        plan: segments that cover the n rows in order; empty segments are allowed.
        weights: one per segment, A (r, k) and B (d, r) of any rank; None leaves the rows as they
            are, bit for bit.
        name: which implementation computes it (see `implementation`).

    With fused linears B is block-structured: block i adds `(X[s]·A_iᵀ)·B_iᵀ` to its own columns.

    Raises:
        ValueError: shapes, plan and weights do not fit each other.

    """
    if not (x.shape[0] == y.shape[0] == plan.rows and len(weights) == len(plan.segments)):
        raise ValueError(
            f"{tuple(x.shape)} and {tuple(y.shape)} with {len(weights)} weights do not fit a plan "
            f"of {plan.rows} rows in {len(plan.segments)} segments"
        )
    implementation(name)(plan, weights)(y, x)
    return y

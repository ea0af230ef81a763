"""The definition of correct: SGMV in plain torch, one pair of products per segment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from kernels.lora.api import Apply, LowRank, Segment, SegmentPlan, scale

Part = tuple[Segment, LowRank]


def prepare(plan: SegmentPlan, weights: Sequence[LowRank | None]) -> Apply:
    """See `kernels.lora.api.sgmv_`, whose docstring is the specification."""
    parts = [
        (segment, low_rank)
        for segment, low_rank in zip(plan.segments, weights, strict=True)
        if low_rank is not None and segment.start < segment.stop
    ]
    return partial(apply, parts)


def apply(parts: Sequence[Part], y: torch.Tensor, x: torch.Tensor) -> None:
    """`Y[s] += (α/r) · (X[s] · Aᵀ) · Bᵀ` for each segment s and its weights."""
    for segment, low_rank in parts:
        shrunk = x[segment.start : segment.stop] @ low_rank.a.to(x.dtype).T
        if low_rank.factors is not None:
            shrunk = (shrunk * low_rank.factors).to(x.dtype)
        for block in low_rank.blocks:
            out = y[segment.start : segment.stop, block.column : block.column + block.b.shape[0]]
            part = shrunk[:, block.row : block.row + block.b.shape[1]]
            out.addmm_(part, block.b.to(x.dtype).T, alpha=scale(low_rank))

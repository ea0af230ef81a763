"""The definition of correct: SGMV in plain torch, one pair of products per segment."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernels.lora.api import LowRank, SegmentPlan, scale


def sgmv_(
    y: torch.Tensor, x: torch.Tensor, plan: SegmentPlan, weights: Sequence[LowRank | None]
) -> torch.Tensor:
    """See `kernels.lora.api.sgmv_`, whose docstring is the specification."""
    for segment, low_rank in zip(plan.segments, weights, strict=True):
        if low_rank is None or segment.start == segment.stop:
            continue
        shrunk = x[segment.start : segment.stop] @ low_rank.a.T
        for block in low_rank.blocks:
            out = y[segment.start : segment.stop, block.column : block.column + block.b.shape[0]]
            part = shrunk[:, block.row : block.row + block.b.shape[1]]
            out.addmm_(part, block.b.T, alpha=scale(low_rank))
    return y

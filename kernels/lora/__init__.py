"""Low-rank adapters over a batch of mixed rows."""

from kernels.lora.api import Block, LowRank, Segment, SegmentPlan, implementation, scale, sgmv_

__all__ = ["Block", "LowRank", "Segment", "SegmentPlan", "implementation", "scale", "sgmv_"]

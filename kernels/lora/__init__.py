"""Low-rank adapters over a batch of mixed rows."""

from kernels.lora.api import (
    Apply,
    Block,
    LowRank,
    Prepare,
    Segment,
    SegmentPlan,
    expand_layout,
    implementation,
    scale,
    sgmv_,
)
from kernels.lora.quantized import quantized

__all__ = [
    "Apply",
    "Block",
    "LowRank",
    "Prepare",
    "Segment",
    "SegmentPlan",
    "expand_layout",
    "implementation",
    "quantized",
    "scale",
    "sgmv_",
]

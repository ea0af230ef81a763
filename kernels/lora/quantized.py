"""Adapter weights in eight bits: half the bytes of bfloat16.

A rank is a row of A and a row of Bᵀ. Each row gets a symmetric scale of its own (its largest value
becomes 127), and the two scales of a rank act as one factor on `X·Aᵀ`, between the two products:
the native kernel expands no weight in memory. Accumulation stays in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.lora.api import Block, LowRank, expand_layout

_LARGEST = 127


def quantized(weights: LowRank) -> LowRank:
    """`weights` (of any float type) with A and every B in int8, and `factors` to undo it.

    A row's rounding error is at most its largest value / 254.
    """
    a, factors = _rows(weights.a)
    blocks = []
    for block in weights.blocks:
        b, scales = _rows(block.b.t())
        factors[block.row : block.row + len(scales)] *= scales
        blocks.append(Block(block.column, block.row, expand_layout(b.t())))
    return LowRank(a, tuple(blocks), weights.alpha, weights.rank, factors)


def _rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m) floats as int8 rows and their (n,) scales."""
    values = matrix.float()
    scales = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
    return (values / scales[:, None]).round().to(torch.int8), scales

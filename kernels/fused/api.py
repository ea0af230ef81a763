"""Residual sum with RMS norm (arXiv:1910.07467), and the gated activation (arXiv:2002.05202).

And what greedy decoding wants of its logits, read once.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Fused(Protocol):
    """The operations. T rows, H hidden, I intermediate, V vocabulary."""

    def add_rms_norm(
        self, x_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
    ) -> Tensor:
        """`x += delta` in place, then `x / sqrt(mean(x²) + epsilon) · weight`, as a new tensor."""
        ...

    def silu_mul(self, gate_up_T2I: Tensor) -> Tensor:
        """`silu(gate) · up`, (T, I); the gate is the first half of the columns."""
        ...

    def summarize(self, logits_TV: Tensor) -> tuple[list[int], list[float], list[float]]:
        """Of each row: the first of its largest logits, that logit, and log Σ exp, in float32."""
        ...


def implementation(name: str) -> Fused:
    """The named implementation: `reference` (plain torch) or `native` (C++ for CPUs).

    Raises:
        ValueError: there is none of this name.
        NativeUnavailable: `native` cannot be compiled or loaded here.
    """
    if name == "reference":
        from kernels.fused.reference import Reference

        return Reference()
    if name == "native":
        from kernels.fused.native import Native

        return Native()
    raise ValueError(f"no fused implementation {name!r}; there is reference, native")

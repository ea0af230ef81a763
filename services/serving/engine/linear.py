"""Weight products on CPU.

Weights are packed once for oneDNN, which is 1.2-4 times `F.linear` at the row counts of decoding;
plain `F.linear` where the build has no oneDNN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class PackedLinear:
    """y = x·Wᵀ for a fixed W of shape (d, k)."""

    def __init__(self, weight: Tensor) -> None:
        self.out_features, self.in_features = weight.shape
        self._plain: Tensor | None = weight
        self._packed: Tensor | None = None
        if weight.device.type == "cpu" and packing_available():
            # one overload, so that no call has to choose among them
            self._product = torch.ops.mkldnn._linear_pointwise.default
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
            self._plain = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            y: Tensor = self._product(x, self._packed, None, "none", [], "")
            return y
        assert self._plain is not None
        return functional.linear(x, self._plain)


def packing_available() -> bool:
    """Whether this build has oneDNN with its packing operators."""
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")

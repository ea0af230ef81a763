"""The definition of correct: the fused steps in plain torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import rms_norm, silu


class Reference:
    """See `kernels.fused.api.Fused`, whose docstrings are the specification."""

    def add_rms_norm(
        self, x_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
    ) -> Tensor:
        if delta_TH is not None:
            x_TH += delta_TH
        return rms_norm(x_TH, weight_H.shape, weight_H, epsilon)

    def silu_mul(self, gate_up_T2I: Tensor) -> Tensor:
        gate, up = gate_up_T2I.chunk(2, -1)
        return silu(gate).mul_(up)

    def summarize(self, logits_TV: Tensor) -> tuple[list[int], list[float], list[float]]:
        wide = logits_TV.float()
        best, mass = wide.argmax(-1), wide.logsumexp(-1)
        return best.tolist(), wide.gather(1, best[:, None])[:, 0].tolist(), mass.tolist()

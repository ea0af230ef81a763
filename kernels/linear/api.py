"""Products of rows with a weight that never changes, and may therefore be kept as it suits.

T rows, d outputs, k inputs.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Linear = Callable[[Tensor], Tensor]
"""x (T, k) → x·Wᵀ (T, d), of x's type; sums are float32."""


def implementation(name: str) -> Callable[[Tensor], Linear]:
    """The named implementation; it takes a weight (d, k), which the caller need not keep.

    `reference` is plain torch. `native` is the best of what this processor has: our kernel on its
    matrix unit (bf16), oneDNN with the weight packed, or plain torch.

    Raises:
        ValueError: there is none of this name.
        NativeUnavailable: `native` cannot be compiled or loaded here.
    """
    if name == "reference":
        from kernels.linear.reference import prepare

        return prepare
    if name == "native":
        from kernels.linear.native import Native

        return Native().prepare
    raise ValueError(f"no linear implementation {name!r}; there is reference, native")

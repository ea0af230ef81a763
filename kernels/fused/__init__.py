"""The steps between a layer's matrix products, each in one pass over its rows."""

from kernels.fused.api import Fused, implementation

__all__ = ["Fused", "implementation"]

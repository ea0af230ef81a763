"""Products of a step's rows with a weight that never changes."""

from kernels.linear.api import Linear, implementation

__all__ = ["Linear", "implementation"]

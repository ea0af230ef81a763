"""Attention row by row over the key-value cache."""

from kernels.attention.api import Attend, Rotary, Rows, implementation

__all__ = ["Attend", "Rotary", "Rows", "implementation"]

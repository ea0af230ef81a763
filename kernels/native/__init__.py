"""Kernels in C++ for CPUs, compiled where they run."""

from kernels.native.build import NativeUnavailable, library

__all__ = ["NativeUnavailable", "library"]

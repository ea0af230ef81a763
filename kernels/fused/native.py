"""The fused steps in C++ for CPUs (`kernels/native/steps.cpp`)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.native import library

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Native:
    """See `kernels.fused.api.Fused`. Raises NativeUnavailable when the kernels cannot be had."""

    def __init__(self) -> None:
        self._norm, self._silu, self._summary = {}, {}, {}
        for dtype, name in _NAMES.items():
            norm = getattr(library(), f"add_rms_norm_{name}")
            norm.argtypes = [_POINTER] * 4 + [_NUMBER] * 2 + [ctypes.c_float]
            silu = getattr(library(), f"silu_mul_{name}")
            silu.argtypes = [_POINTER] * 2 + [_NUMBER] * 2
            summary = getattr(library(), f"summarize_{name}")
            summary.argtypes = [_POINTER, *[_NUMBER] * 2, *[_POINTER] * 3]
            norm.restype = silu.restype = summary.restype = None
            self._norm[dtype], self._silu[dtype] = norm, silu
            self._summary[dtype] = summary

    def add_rms_norm(
        self, x_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
    ) -> Tensor:
        out = torch.empty_like(x_TH)
        _require_contiguous(x_TH, delta_TH, weight_H, out)
        delta = None if delta_TH is None else delta_TH.data_ptr()
        self._norm[x_TH.dtype](
            x_TH.data_ptr(), delta, weight_H.data_ptr(), out.data_ptr(), *x_TH.shape, epsilon
        )
        return out

    def silu_mul(self, gate_up_T2I: Tensor) -> Tensor:
        rows, both = gate_up_T2I.shape
        out = gate_up_T2I.new_empty(rows, both // 2)
        _require_contiguous(gate_up_T2I, out)
        self._silu[gate_up_T2I.dtype](gate_up_T2I.data_ptr(), out.data_ptr(), rows, both // 2)
        return out

    def summarize(self, logits_TV: Tensor) -> tuple[list[int], list[float], list[float]]:
        _require_contiguous(logits_TV)
        rows, vocabulary = logits_TV.shape
        best = torch.empty(rows, dtype=torch.int64)
        value, mass = torch.empty(2, rows)
        self._summary[logits_TV.dtype](
            logits_TV.data_ptr(),
            rows,
            vocabulary,
            best.data_ptr(),
            value.data_ptr(),
            mass.data_ptr(),
        )
        return best.tolist(), value.tolist(), mass.tolist()


def _require_contiguous(*tensors: Tensor | None) -> None:
    if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
        raise ValueError("the fused steps want contiguous rows")

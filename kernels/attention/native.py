"""Attention row by row in C++ for CPUs (`kernels/native/steps.cpp`)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from kernels.attention.api import Attend, Rotary, Rows
from kernels.native import library

_NAMES = {torch.float32: "attend_float32", torch.bfloat16: "attend_bfloat16"}


class Native:
    """Raises NativeUnavailable when the kernels cannot be had."""

    def __init__(self) -> None:
        self._functions: dict[torch.dtype, Any] = {}
        for dtype, name in _NAMES.items():
            function = getattr(library(), name)
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            function.argtypes = [pointer] * 4 + [number] + [pointer] * 2 + [number] * 4
            function.argtypes += [pointer, number, pointer, pointer]
            function.restype = None
            self._functions[dtype] = function

    def prepare(self, rotary: Rotary, rows: Rows) -> Attend:
        """See `kernels.attention.api.Attend`, whose docstring is the specification."""
        function = self._functions[rotary.cos_LD.dtype]

        def attend(qkv: Tensor, pages: Tensor, table: Tensor, out: Tensor) -> None:
            _, _, kv, positions, dim = pages.shape
            if not all(t.is_contiguous() for t in (qkv, pages, table, out)):
                raise ValueError("qkv, pages, table and out must be contiguous")
            if table.dtype != torch.int32:
                raise ValueError(f"a table of int32 wanted, not {table.dtype}")
            function(
                qkv.data_ptr(),
                rotary.cos_LD.data_ptr(),
                rotary.sin_LD.data_ptr(),
                rows.decode_N.data_ptr(),
                len(rows.decode_N),
                rows.positions_T.data_ptr(),
                rows.slots_T.data_ptr(),
                qkv.shape[1] - 2 * kv,
                kv,
                dim,
                positions,
                table.data_ptr(),
                table.shape[1],
                pages.data_ptr(),
                out.data_ptr(),
            )

        return attend

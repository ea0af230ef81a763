"""Which floating-point precision suits this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]
_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """bfloat16 where the processor multiplies it natively, else float32."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return "float32"
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "bfloat16" if _NATIVE_BFLOAT16 & set(flags.split()) else "float32"

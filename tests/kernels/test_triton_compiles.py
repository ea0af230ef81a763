"""The Triton kernels compiled ahead of time for GPUs that are not here, and what their PTX says."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra: gpu)")

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.lora import triton as sgmv

name, arch, dtype, aligned = json.loads(sys.argv[1])
kernel = getattr(sgmv, name)
types = {"x": "*" + dtype, "y": "*" + dtype, "scratch": "*fp32", "scales": "*fp32", "work": "*i64"}
sides = {"ROWS": sgmv.ROWS, "RANKS": sgmv.RANKS, "DEPTH": sgmv.DEPTH, "COLUMNS": sgmv.COLUMNS}
given = {**sides, "ALIGNED": aligned, "UPCAST": False}
constants = {n: given[n] for n in kernel.arg_names if n in given}
signature = {
    n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names
}
# what the launcher finds out of pointers from torch and of widths that are multiples of 16
attrs = {
    (i,): [["tt.divisibility", 16]]
    for i, n in enumerate(kernel.arg_names)
    if n not in constants and aligned
}
source = ASTSource(kernel, signature, constexprs=constants, attrs=attrs)
print(triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["ptx"])
"""


def ptx(tmp_path, name, arch, dtype, *, aligned):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path)
    arguments = json.dumps([name, arch, dtype, aligned])
    command = [sys.executable, "-c", COMPILE, arguments]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.parametrize("arch", [80, 90])
def test_shrink_copies_asynchronously_and_multiplies_on_tensor_cores(tmp_path, arch):
    text = ptx(tmp_path, "shrink", arch, "bf16", aligned=True)
    assert f".target sm_{arch}" in text
    assert "cp.async.cg.shared.global" in text, "16 bytes a copy"
    assert "mma.sync" in text


@pytest.mark.parametrize("arch", [80, 90])
def test_expand_reads_b_in_vectors(tmp_path, arch):
    text = ptx(tmp_path, "expand", arch, "bf16", aligned=True)
    assert f".target sm_{arch}" in text
    assert "ld.global.v4" in text or "cp.async.cg.shared.global" in text
    assert "mma.sync" in text


def test_odd_widths_compile_without_wide_copies(tmp_path):
    assert "cp.async.cg" not in ptx(tmp_path, "shrink", 80, "bf16", aligned=False)

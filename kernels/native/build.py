"""Compiles the C++ kernels on the machine that runs it, once, and loads it.

The library's name holds the digest of source, flags, compiler and processor, so that a change of
any of them builds anew and two processes can share one folder. There is one OpenMP runtime in the
process: torch's own, which the library finds when it is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path

import torch

FLAGS = (
    "-O3",
    "-march=native",
    "-Wno-psabi",  # vectors are passed between inlined functions only
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    # sums may be reordered; unlike -ffast-math this leaves NaN, infinity and denormals alone
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
)


class NativeUnavailable(RuntimeError):
    """The kernels cannot be compiled or loaded here; the message says why."""


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises NativeUnavailable; the reference is then what runs."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NativeUnavailable("no C++ compiler (g++ or clang++) is installed")
    sources = _sources()
    identity = (*sources.values(), " ".join(FLAGS).encode(), _version(compiler), _processor())
    name = hashlib.sha256(b"\0".join(identity)).hexdigest()[:24]
    built = cache_folder() / f"kernels-{name}.so"
    try:
        if not built.exists():
            _compile(compiler, sources, built)
        _openmp()
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise NativeUnavailable(f"the kernels cannot be loaded: {error}") from error


def cache_folder() -> Path:
    """`$SLUICE_KERNEL_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("SLUICE_KERNEL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(base) / "sluiceway" / "kernels"


def _sources() -> dict[str, bytes]:
    """Name → content of what is compiled, headers among them."""
    files = resources.files("kernels.native").iterdir()
    found = {file.name: file.read_bytes() for file in files if file.name.endswith((".cpp", ".h"))}
    return dict(sorted(found.items()))


def _compile(compiler: str, sources: dict[str, bytes], built: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as room:
        work = Path(room)
        for name, content in sources.items():
            (work / name).write_bytes(content)
        units = [work / name for name in sources if name.endswith(".cpp")]
        objects = [str(unit.with_suffix(".o")) for unit in units]
        made = work / "kernels.so"
        # linked without -fopenmp: its symbols are found in the runtime torch has loaded
        commands = [
            [compiler, *FLAGS, "-c", str(unit), "-o", compiled]
            for unit, compiled in zip(units, objects, strict=True)
        ]
        with ThreadPoolExecutor(len(commands)) as at_once:
            list(at_once.map(_run, commands))
        _run([compiler, "-shared", *objects, "-o", str(made)])
        made.replace(built)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NativeUnavailable(f"{command[0]} failed: {done.stderr.strip()[-500:]}")


def _openmp() -> None:
    """Make torch's OpenMP runtime visible to libraries that are loaded later."""
    libraries = Path(torch.__file__).parent / "lib"
    found = sorted(libraries.glob("lib*omp*.so*"))
    if not found:
        raise NativeUnavailable("this build of torch brings no OpenMP runtime")
    ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)


def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout


def _processor() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    return "\n".join(
        sorted({ln for ln in lines if ln.startswith(("model name", "flags"))})
    ).encode()

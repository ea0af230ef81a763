import subprocess
import sys
from pathlib import Path

import pytest

from kernels.native import NativeUnavailable, build


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_KERNEL_CACHE", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path
    build.library.cache_clear()


def test_a_machine_without_a_compiler_is_told_so(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NativeUnavailable, match="no C\\+\\+ compiler"):
        build.library()


def test_a_compiler_that_fails_is_quoted_and_nothing_is_kept(fresh, monkeypatch):
    compiler = fresh / "cxx"
    compiler.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(NativeUnavailable, match="no such flag"):
        build.library()
    assert not list(fresh.glob("*.so"))


def test_the_process_has_one_openmp_runtime():
    script = """
        import pathlib
        from kernels.native import NativeUnavailable, library
        try:
            library()
        except NativeUnavailable as reason:
            print("skip", reason)
            raise SystemExit
        maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
        names = {line.split("/")[-1] for line in maps if "/" in line}
        print(*[name for name in names if name.startswith(("libgomp", "libomp", "libiomp"))])
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in script.splitlines())],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    assert len(done.stdout.split()) == 1, done.stdout

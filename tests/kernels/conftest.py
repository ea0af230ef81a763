import os

import pytest

from kernels.native import NativeUnavailable, library

# read when a kernel is decorated, so before any test imports one
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _where_it_can_be_had(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    name = None if callspec is None else callspec.params.get("name")
    if name == "triton":
        pytest.importorskip("triton", reason="Triton is not installed (extra: gpu)")
    if name != "native":
        return
    try:
        library()
    except NativeUnavailable as reason:
        pytest.skip(str(reason))

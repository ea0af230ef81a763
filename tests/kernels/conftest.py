import pytest

from kernels.native import NativeUnavailable, library


@pytest.fixture(autouse=True)
def _native_where_it_can_be_had(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is None or callspec.params.get("name") != "native":
        return
    try:
        library()
    except NativeUnavailable as reason:
        pytest.skip(str(reason))

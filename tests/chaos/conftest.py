"""Options of the failure tests. They exist when pytest is called with `tests/chaos`."""

from __future__ import annotations

import random

import pytest

SHORT_RUNS = 1
LONG_RUNS = 4
LONG_KILLS = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--long", action="store_true", help="many runs with many kills")
    group.addoption("--seed", type=int, default=None, help="repeat the run that printed this seed")
    group.addoption("--runs", type=int, default=LONG_RUNS, help="how many runs --long makes")
    group.addoption(
        "--kills", type=int, default=LONG_KILLS, help="how often --long kills each service"
    )


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long", default=False))


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """Of each service, in the long form."""
    return int(request.config.getoption("--kills", default=LONG_KILLS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repeat" in metafunc.fixturenames:
        config = metafunc.config
        runs = config.getoption("--runs") if config.getoption("--long", default=False) else 1
        metafunc.parametrize("repeat", range(runs))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of this test's choices; printed, and shown by pytest when the test fails."""
    given = request.config.getoption("--seed", default=None)
    chosen = random.SystemRandom().randrange(1 << 31) if given is None else int(given)
    print(f"\n{request.node.name}: --seed {chosen}", flush=True)
    return chosen

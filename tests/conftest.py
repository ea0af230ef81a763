"""Fixtures every area shares: a real nats-server, a scratch home, short and long forms.

`--long` gives a test that has one its long form (`make chaos`), `--seed` repeats its choices.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from shared.messaging.embedded import EmbeddedNats, free_port
from shared.settings import Settings

# Read by Triton at its first import, which other libraries may do: its kernels run on the CPU here.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A busy machine is no defect of a law.
hypothesis_settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.register_profile(
    "long", hypothesis_settings.get_profile("shared"), max_examples=2000
)
hypothesis_settings.load_profile("shared")

LONG_RUNS = 4
LONG_KILLS = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--long", action="store_true", help="the long forms of the failure tests")
    group.addoption("--seed", type=int, default=None, help="repeat what printed this seed")
    group.addoption("--runs", type=int, default=LONG_RUNS, help="how many runs --long breaks")
    group.addoption(
        "--kills", type=int, default=LONG_KILLS, help="how often --long kills each service"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The long forms draw from one seed, hypothesis as well."""
    if config.getoption("--long"):
        if config.option.seed is None:
            config.option.seed = random.SystemRandom().randrange(1 << 31)
        config.option.hypothesis_seed = str(config.option.seed)
        hypothesis_settings.load_profile("long")


def pytest_report_header(config: pytest.Config) -> str | None:
    return f"long forms: --seed {config.option.seed}" if config.getoption("--long") else None


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """Of each service, in the long form."""
    return int(request.config.getoption("--kills"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of this test's choices; printed, and shown by pytest when the test fails."""
    given = request.config.getoption("--seed")
    chosen = random.SystemRandom().randrange(1 << 31) if given is None else int(given)
    print(f"\n{request.node.name}: --seed {chosen}", flush=True)
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repeat" in metafunc.fixturenames:
        config = metafunc.config
        runs = config.getoption("--runs") if config.getoption("--long") else 1
        metafunc.parametrize("repeat", range(runs))


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A real nats-server of this test's own."""
    server = EmbeddedNats(tmp_path / "nats", port=free_port())
    await server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, nats_server: EmbeddedNats) -> Settings:
    return Settings(home=tmp_path / "home", nats_url=nats_server.url)

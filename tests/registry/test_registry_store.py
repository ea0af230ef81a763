"""The schema is what the models say, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from contracts.registry import CandidateRegistered
from services.registry.store import RegistryStore
from services.registry.store.database import migrate, migrations
from services.registry.store.models import Tables
from shared.errors import Misconfigured, PeerUnavailable
from tests.registry.registry_office import open_office


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="the postgresql extra is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries on this machine")
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="sluice-pg-") as place:
        if user:
            shutil.chown(place, user)

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [binaries / program, *arguments],
                user=user,
                cwd=place,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": place},
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=60,
            )

        data, port = f"{place}/data", _free_port()
        call("initdb", "-D", data, "-U", "sluice", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-l", f"{place}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://sluice@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return str(request.getfixturevalue("postgresql"))


@pytest.mark.req("R6")
def test_the_migrations_build_exactly_the_models_schema(url: str) -> None:
    store = RegistryStore(url)
    RegistryStore(url).close()  # a second start finds nothing to do
    with store.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Tables.metadata) == []
        assert context.get_current_revision() == "0001"
        assert {"adapters", "history", "alembic_version"} <= set(
            inspect(connection).get_table_names()
        )
    store.close()


@pytest.mark.req("R6")
def test_the_migrations_go_down_to_nothing_and_up_again(url: str) -> None:
    store = RegistryStore(url)
    with store.engine.begin() as connection:
        command.downgrade(migrations(connection), "base")
        assert {"adapters", "history"}.isdisjoint(inspect(connection).get_table_names())
    with store.engine.begin() as connection:
        migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Tables.metadata) == []
    store.close()


@pytest.mark.req("R6")
@pytest.mark.req("R1")
def test_registration_and_promotion_are_the_same_on_every_database(
    url: str, tmp_path: Path
) -> None:
    office = open_office(tmp_path, url)
    runs = [office.gated(seed=seed) for seed in (1, 1, 2, 3, 1)]
    with ThreadPoolExecutor(5) as pool:
        facts = list(pool.map(office.registry.register, runs))
    assert all(isinstance(fact, CandidateRegistered) for fact in facts)
    assert facts[0] == facts[1] == facts[4]
    versions = sorted(row.version for row in office.store.read(lambda b: b.adapters()))
    assert versions == [1, 2, 3]
    promoted = office.registry.promote(office.completed(seed=2))
    row = office.store.read(lambda b: b.adapter(promoted.adapter_id))
    assert row is not None
    assert row.created_at.utcoffset() is not None
    assert row.status == "promoted"
    office.store.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "oracle://x"])
def test_a_wrong_database_setting_is_named_at_start(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"registry on|not a database URL"):
        RegistryStore(url)


def test_a_database_that_does_not_answer_may_be_tried_again() -> None:
    pytest.importorskip("psycopg", reason="the postgresql extra is not installed")
    with pytest.raises(PeerUnavailable, match="does not answer"):
        RegistryStore(f"postgresql+psycopg://nobody@127.0.0.1:{_free_port()}/none")

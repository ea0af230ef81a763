"""Open the database, bring its schema up to date, and run transactions that can be tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from services.registry.store.ledger import Ledger
from shared.errors import Misconfigured, PeerUnavailable, TransientError

_MIGRATIONS = Path(__file__).parent / "migrations"
_TRIES = 5
Result = TypeVar("Result")


class RegistryStore:
    """SQLite or PostgreSQL behind one URL. Migrated to the newest schema when opened."""

    def __init__(self, url: str) -> None:
        """Open and migrate.

        Raises:
            Misconfigured: the URL is wrong or its driver is not installed.
            PeerUnavailable: the database does not answer.

        """
        self._engine = _engine(url)
        try:
            with self._engine.begin() as connection:
                migrate(connection)
        except OperationalError as error:
            raise PeerUnavailable(
                f"the registry's database does not answer: {error.orig}",
                mend="start it, or correct SLUICE_REGISTRY_DATABASE",
            ) from error

    @property
    def engine(self) -> Engine:
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    def write(self, work: Callable[[Ledger], Result]) -> Result:
        """Run `work` in one transaction; run it again if a concurrent one took its rows.

        Raises:
            TransientError: others kept winning, or the database went away.

        """
        for _ in range(_TRIES):
            try:
                with Session(self._engine, expire_on_commit=False) as session, session.begin():
                    return work(Ledger(session))
            except IntegrityError:
                continue
            except OperationalError as error:
                raise PeerUnavailable(f"the registry's database failed: {error.orig}") from error
        raise TransientError(f"gave way to other writers {_TRIES} times")

    def read(self, work: Callable[[Ledger], Result]) -> Result:
        """Run `work`, which changes nothing."""
        with Session(self._engine, expire_on_commit=False) as session:
            return work(Ledger(session))


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the schema behind `connection` up to `revision`."""
    command.upgrade(migrations(connection), revision)


def migrations(connection: Connection) -> Config:
    """Alembic's configuration, for whoever must go back: `alembic.command.downgrade`."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _engine(url: str) -> Engine:
    mend = "set SLUICE_REGISTRY_DATABASE to sqlite:///… or postgresql+psycopg://…"
    try:
        target = make_url(url)
        if target.get_backend_name() not in {"sqlite", "postgresql"}:
            raise Misconfigured(f"no registry on {target.get_backend_name()}", mend=mend)
        if target.get_backend_name() == "sqlite" and target.database:
            Path(target.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(target, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise Misconfigured(f"not a database URL: {error}", mend=mend) from error
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"the database driver {error.name} is not installed",
            mend="pip install 'sluiceway[postgresql]'",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is off; ours follows
    for pragma in ("foreign_keys=ON", "journal_mode=WAL", "busy_timeout=10000", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a later upgrade of a read lock fails without waiting."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")

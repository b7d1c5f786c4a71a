"""The label store's database: opening it, migrating its schema, and running transactions reliably.

SQLite: write-ahead log and synchronous=FULL, so a committed label survives a crash of the machine; one writer at a
time, while others wait. PostgreSQL: through pg8000.
"""

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Connection, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError

from popmargin.errors import ConfigError, RunError, import_extra
from popmargin.label.store.sql_tables import REVISION, metadata

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
WAIT_SECONDS = 60.0
ATTEMPTS = 20
CHUNK = 10_000
SERVER_THREADS = 40
CHECKPOINT_SECONDS = 5.0
"""How long after a write SQLite's log is moved into the file, so that the file alone is nearly whole."""
_MIGRATION_LOCK = 0x706F706D  # "popm"
_VERSION_TABLE = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num))"
_LOST_RACE = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available

_LOST = (DBAPIError, ConnectionResetError, ConnectionAbortedError)
"""What a lost connection raises: pg8000 lets a reset while it reads through as it is."""


class AwayError(RunError):
    """The database does not answer now; the same request may work in a moment."""


class Database:
    """A pool of connections to one SQLite file or PostgreSQL database.

    Args:
        url: a path, `sqlite:///path` or `postgresql://user@host/name`.

    Raises:
        ConfigError: a URL of another kind.
        RunError: the database cannot be opened, is not a label store, or was written by a newer popmargin.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = _url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        self._timing = threading.Lock()
        self._moving = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        options: dict[str, Any] = {"connect_args": {"timeout": WAIT_SECONDS}} if self.sqlite else {}
        # Each server thread may hold a connection; none should wait for another's, or open one per request.
        self._engine = create_engine(
            self.url,
            pool_size=SERVER_THREADS,
            max_overflow=-1,
            pool_pre_ping=not self.sqlite,  # after a restart of the server no connection is left
            hide_parameters=True,
            **options,
        )
        if self.sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._upgrade()
        except (AwayError, InterfaceError, OperationalError, DatabaseError) as error:
            self.close()
            cause = error.__cause__ if isinstance(error, AwayError) else error
            remedy = (
                "Give the path of a label store, or of a file that does not exist yet."
                if self.sqlite
                else "Check that the server is running, and the host, database, user and password in the URL."
            )
            why = getattr(cause, "orig", cause)
            raise RunError(f"{self.name}: cannot be opened as a label store: {why}. {remedy}") from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""
        return str(self.url.database) if self.sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections; the last one of a SQLite file leaves no log beside it."""
        with self._timing:
            self._closed = True
            waiting, self._timer = self._timer, None
        if waiting is not None:
            waiting.cancel()
            self.checkpoint()  # others may have the file open
        with self._moving:
            self._engine.dispose()

    def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the file; nobody waits for it, and it waits for nobody."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:  # nothing is lost: the log keeps it
            _LOG.warning("%s: its write-ahead log could not be moved into the file: %s", self.name, error)
        finally:
            connection.close()

    def _checkpoint_later(self) -> None:
        with self._timing:
            if self.sqlite and self._timer is None and not self._closed:
                self._timer = threading.Timer(CHECKPOINT_SECONDS, self._checkpoint_now)
                self._timer.daemon = True
                self._timer.start()

    def _checkpoint_now(self) -> None:
        with self._moving:
            with self._timing:
                if self._closed:
                    return
                self._timer = None
            self.checkpoint()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A connection with a read transaction.

        Raises:
            AwayError: the database does not answer.
        """
        try:
            with self._connect() as connection:
                yield connection
        except _LOST as error:
            self._raise(error)

    def _connect(self) -> Connection:
        try:
            return self._engine.connect()
        except _LOST as error:  # whatever it is: there is no connection
            raise self._away_error(error) from error

    def write(self, work: Callable[[Connection], T], *, schema: bool = False) -> T:
        """The result of `work`, after its transaction is committed; it is run again if the transaction lost a race.

        Args:
            work: what is done in the transaction.
            schema: it changes tables. SQLite changes a constraint only by recreating the table, with foreign keys
                unchecked meanwhile; this connection cannot be used for anything else afterwards.

        Raises:
            AwayError: the database does not answer, or is locked for long; nothing says whether the transaction was
                committed if the connection was lost at its end.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                done = self._write_once(work, schema)
                self._checkpoint_later()
                return done
            except _LOST as error:
                if not _lost_race(error) or attempt == ATTEMPTS:
                    self._raise(error)
                time.sleep(random.uniform(0, 0.02 * attempt))
        raise AssertionError("unreachable")

    def _write_once(self, work: Callable[[Connection], T], schema: bool) -> T:
        if not self.sqlite:
            with self._connect() as connection, connection.begin():
                return work(connection)
        options = {"writes": True, "schema": schema}
        with self._writer, self._connect().execution_options(**options) as connection, connection.begin():
            return work(connection)

    def _raise(self, error: DBAPIError | OSError) -> NoReturn:
        """Raise an error of the driver, in words if the same request may work later."""
        if _away(error) or _lost_race(error):
            raise self._away_error(error) from error
        raise error

    def _away_error(self, error: DBAPIError | OSError) -> AwayError:
        return AwayError(
            f"{self.name}: the database does not answer ({getattr(error, 'orig', error)}). Try again in a moment."
        )

    def insert(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert many rows of the same columns.

        pg8000 would send them one by one, so for PostgreSQL they are sent as one JSON array.
        """
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            if self.sqlite:
                connection.execute(table.insert(), list(part))
            else:
                names = ", ".join(f'"{name}"' for name in part[0])
                connection.execute(
                    text(
                        f"INSERT INTO {table.name} ({names}) "
                        f"SELECT {names} FROM json_populate_recordset(NULL::{table.name}, CAST(:rows AS json))"
                    ),
                    {"rows": json.dumps(list(part), default=_json_value)},
                )

    def _upgrade(self) -> None:
        with self.read() as connection:
            if _revision(connection, self.name) == REVISION:
                return
        self.write(self._migrate, schema=True)
        self._engine.dispose()

    def _migrate(self, connection: Connection) -> None:
        if not self.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        found = _revision(connection, self.name)
        if found == REVISION:  # another process was faster
            return
        if found is None:  # all that the revisions would make, at once; tests hold the two against each other
            metadata.create_all(connection)
            connection.execute(text(_VERSION_TABLE))
            connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})
            return
        from alembic import command
        from alembic.script import ScriptDirectory

        settings = alembic_config()
        known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
        if found not in known:
            raise RunError(
                f"{self.name}: written by a newer popmargin (schema {found}; this version knows {REVISION}). Nothing "
                "was changed. Upgrade popmargin."
            )
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")
        if self.sqlite and connection.execute(text("PRAGMA foreign_key_check")).first() is not None:
            raise RunError(f"{self.name}: some rows refer to missing rows. Nothing was changed. Restore a backup.")


def alembic_config() -> Any:
    """Alembic's settings for the migrations shipped in the package."""
    config = import_extra("alembic.config", "label").Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _url(url: str | Path) -> URL:
    if isinstance(url, Path) or "://" not in url:
        path = Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        return URL.create("sqlite", database=str(path))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"The label store's URL cannot be read: {error}.") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite")
    if parsed.drivername in ("postgresql", "postgres", "postgresql+pg8000"):
        import_extra("pg8000", "postgres")
        return parsed.set(drivername="postgresql+pg8000")
    raise ConfigError(
        "A label store is a file (a path or sqlite:///path) or postgresql://user@host/name; "
        f"found '{parsed.drivername}'{'' if parsed.database else ' without a database'}."
    )


def _revision(connection: Connection, name: str) -> str | None:
    """The schema's revision; None for an empty database."""
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if tables & set(metadata.tables) or (tables and connection.dialect.name == "sqlite"):
        raise RunError(f"{name}: contains another program's tables. Give a label store, or an empty database.")
    return None


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={WAIT_SECONDS * 1000:.0f}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("schema"):
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    # A transaction that first reads and then writes would fail if another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _lost_race(error: DBAPIError | OSError) -> bool:
    if isinstance(error, OSError):
        return False
    details: Any = error.orig.args[0] if error.orig is not None and error.orig.args else ""
    if isinstance(details, dict):
        return details.get("C") in _LOST_RACE
    return "database is locked" in str(details) or "database table is locked" in str(details)


def _away(error: DBAPIError | OSError) -> bool:
    """Whether the server is gone, ends, or is just starting."""
    if isinstance(error, OSError):
        return True
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    details: Any = error.orig.args[0] if error.orig is not None and error.orig.args else ""
    return isinstance(details, dict) and str(details.get("C", "")).startswith(("57P", "08", "53"))


def _json_value(value: Any) -> str:
    assert isinstance(value, datetime), type(value)
    return value.isoformat()

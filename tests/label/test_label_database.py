"""Opening a store: the schema it makes, and what it refuses to touch."""

import hashlib
import sqlite3
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from popmargin.errors import ConfigError, MissingExtraError, RunError
from popmargin.label.database import Database, alembic_config
from popmargin.label.store import LabelStore
from popmargin.label.tables import REVISION, metadata


def test_the_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    database = Database(url)
    try:
        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    finally:
        database.close()
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == REVISION


def test_constraints_and_partial_indexes_are_those_of_the_code(tmp_path: Path) -> None:
    """Alembic does not compare check constraints and conditions of indexes, so the statements themselves are."""
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{tmp_path / 'code.db'}")
    metadata.create_all(engine)
    engine.dispose()
    LabelStore.open(tmp_path / "migrated.db").close()

    def statements(path: Path) -> dict[str, list[str]]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        connection.close()
        return {
            name: sorted(part.strip(" \t,") for part in sql.splitlines())
            for name, sql in rows
            if name != "alembic_version"
        }

    assert statements(tmp_path / "migrated.db") == statements(tmp_path / "code.db")


def test_sqlite_keeps_what_was_committed(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "labels.db")
    with database.read() as connection:
        settings = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    database.close()
    assert settings == ["wal", 2, 1, 60_000]


def test_a_newer_store_is_refused_and_left_as_it_is(url: str) -> None:
    database = Database(url)
    database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    with pytest.raises(RunError, match=r"newer popmargin \(schema 9999"):
        Database(url)


def test_other_files_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    words = tmp_path / "notes.txt"
    words.write_text("no database, " * 100)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE project (id INTEGER)")
    connection.close()
    for path, message in ((words, "cannot be opened"), (other, "something else")):
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(RunError, match=message):
            LabelStore.open(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before or path == other


def test_urls_that_are_no_store_are_refused() -> None:
    for url in ("mysql://host/name", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="postgresql://user@host/name"):
            LabelStore.open(url)
    with pytest.raises(RunError, match="Check that the server runs"):
        LabelStore.open("postgresql://nobody:secret@127.0.0.1:1/none")


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError) as error:
        LabelStore.open("postgresql://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value) and "nobody" in str(error.value)
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(MissingExtraError, match=r"popmargin\[postgres\]"):
        LabelStore.open("postgresql://nobody@127.0.0.1:1/none")

"""Opening a store: the schema it makes, and what it refuses to touch."""

import hashlib
import sqlite3
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from popmargin.errors import ConfigError, MissingExtraError, RunError
from popmargin.label.store.database import Database, _url, alembic_config
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.sql_tables import REVISION, metadata


def migrate(url: str | Path, revision: str) -> None:
    """An empty database gets the schema of a revision, step by step from the first one."""
    engine = create_engine(_url(url))
    with engine.begin() as opened:
        settings = alembic_config()
        settings.attributes["connection"] = opened
        command.upgrade(settings, revision)
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    migrate(url, "head")
    database = Database(url)
    try:
        with database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    finally:
        database.close()
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == REVISION


def test_constraints_and_partial_indexes_are_those_of_a_new_store(tmp_path: Path) -> None:
    """Alembic does not compare check constraints and conditions of indexes, so the statements themselves are."""
    migrate(tmp_path / "migrated.db", "head")
    LabelStore.open(tmp_path / "new.db").close()

    def statements(path: Path) -> dict[str, list[str]]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        connection.close()
        return {
            # SQLite quotes the name of a table that a migration made anew.
            name: sorted(part.strip(" \t,").replace(f'TABLE "{name}"', f"TABLE {name}") for part in sql.splitlines())
            for name, sql in rows
            if name != "alembic_version"
        }

    assert statements(tmp_path / "migrated.db") == statements(tmp_path / "new.db")


def test_a_new_store_takes_later_revisions(url: str) -> None:
    """It says which revision it is in the way that Alembic reads and writes."""
    Database(url).close()
    engine = create_engine(_url(url))
    with engine.begin() as opened:
        context = MigrationContext.configure(opened)
        assert context.get_current_heads() == (REVISION,)
        context.stamp(ScriptDirectory.from_config(alembic_config()), "0001")
        assert context.get_current_heads() == ("0001",)
    engine.dispose()


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A store as the first schema made it, with a label."""
    path = tmp_path / "old.db"
    migrate(path, "0001")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as opened:
        for statement in (
            "INSERT INTO project VALUES (1, 'old', 1, 0, 60, '', 0, 2, 1, 1, 2, 0, '2026-01-01')",
            "INSERT INTO preference VALUES (1, 1, 0, 'p0', '\"q\"', '\"a\"', '\"b\"', 1, 0, NULL, NULL, NULL)",
            "INSERT INTO preference VALUES (2, 1, 1, 'p1', '\"r\"', '\"a\"', '\"b\"', 1, 0, NULL, NULL, NULL)",
            "INSERT INTO item VALUES (1, 1, 0, 'pop', 1, 2, NULL, 1, 1, 0)",
            "INSERT INTO item VALUES (2, 1, 1, 'pop', 2, 1, 'first', 1000000000, 0, 0)",
            "INSERT INTO annotator VALUES (1, 1, 'anna', 'person', 1, 'x', 0, 1, 1, 0, '2026-01-01')",
            "INSERT INTO assignment VALUES (1, 1, 1, 1, 1, 'done', NULL, 1, 1, NULL, 0, 0, 0, 0, '2026-01-01')",
            "INSERT INTO label VALUES (1, 1, 1, 1, 'first', NULL, 0.75, 'why', 2.5, 'r1', '2026-01-01 00:00:00')",
        ):
            opened.execute(text(statement))
    engine.dispose()
    return path


def test_a_store_of_the_first_schema_is_brought_up_to_date_with_all_that_it_holds(old_store: Path) -> None:
    with LabelStore.open(old_store) as store:
        project = store.project("old")
        (row,) = store.labels(project.id).to_pylist()
        assert (row["verdict"], row["confidence"], row["note"], row["second"]) == ("first", 0.75, "why", "p1")
        assert row["response"] is None and project.scale is None and project.items == 2
        now = store.next_assignment(1)
        assert now is not None and now.item == 2
        store.record(1, now.id, "tie", request="r2")
        assert store.preference_columns(project.id)["cluster"] == [None, None]
        rated = store.create_project("rated", scale=5)
        assert rated.id == 2
    connection = sqlite3.connect(old_store)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISION,)
    connection.close()


def test_foreign_keys_hold_after_a_migration(old_store: Path) -> None:
    database = Database(old_store)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        database.write(lambda connection: connection.execute(text("DELETE FROM item WHERE id = 1")))
    database.close()


def test_rows_that_refer_to_nothing_stop_a_migration_and_stay(old_store: Path) -> None:
    connection = sqlite3.connect(old_store)
    connection.execute("DELETE FROM item WHERE id = 1")
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match=r"some rows refer to missing rows\. Nothing was changed"):
        LabelStore.open(old_store)
    connection = sqlite3.connect(old_store)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    connection.close()


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
    for path, message in ((words, "cannot be opened"), (other, "another program's tables")):
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(RunError, match=message):
            LabelStore.open(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before or path == other


def test_urls_that_are_no_store_are_refused() -> None:
    for url in ("mysql://host/name", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="postgresql://user@host/name"):
            LabelStore.open(url)
    with pytest.raises(RunError, match="Check that the server is running"):
        LabelStore.open("postgresql://nobody:secret@127.0.0.1:1/none")


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError) as error:
        LabelStore.open("postgresql://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value) and "nobody" in str(error.value)
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(MissingExtraError, match=r"popmargin\[postgres\]"):
        LabelStore.open("postgresql://nobody@127.0.0.1:1/none")

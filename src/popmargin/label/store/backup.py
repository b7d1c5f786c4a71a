"""A copy of a label store in use: whole in one file, of one moment, without stopping anybody."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from popmargin.errors import ConfigError, DataError, RunError
from popmargin.files import whole_file
from popmargin.label.store.address import in_words
from popmargin.label.store.missing_log import missing_part

_WAIT_SECONDS = 60.0


def back_up(url: str, out: Path) -> tuple[int, int]:
    """Copy a SQLite store with SQLite's own backup; people may go on labelling meanwhile.

    The schema is left as it is, so a store can be copied before a newer popmargin migrates it.

    Args:
        url: the store.
        out: the file to write; complete, or not there.

    Returns:
        How many projects and how many revisions of labels the copy holds.

    Raises:
        ConfigError: a PostgreSQL database; the message names `pg_dump`.
        DataError: the file is no label store, or holds no project.
        RunError: the copy cannot be written, or is damaged.
    """
    path = url.removeprefix("sqlite:///")
    if "://" in path:
        address = in_words(url)
        raise ConfigError(
            f"{address} is a PostgreSQL database. Copy it with its own tool, which is safe while people label: "
            f"pg_dump --format=custom --file {in_words(str(out))} {address}"
        )
    with whole_file(out) as partial:
        try:
            with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as store:
                _refuse_others(store, path)
                with closing(sqlite3.connect(partial)) as copy:
                    store.backup(copy)
                    copy.execute("PRAGMA journal_mode=DELETE")  # nothing of it is in a second file
                    return _checked(copy, path)
        except sqlite3.Error as error:
            raise RunError(
                f"{path}: cannot be copied to {out}: {error}. Choose another place, or try again."
            ) from error


def _refuse_others(store: sqlite3.Connection, path: str) -> None:
    try:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a label store ({error}). Give the file that --db names elsewhere.") from error
    if not {"alembic_version", "project", "label"} <= tables:
        raise DataError(f"{path}: holds no label store. {missing_part(path)}")


def _checked(copy: sqlite3.Connection, path: str) -> tuple[int, int]:
    def one(statement: str) -> Any:
        return copy.execute(statement).fetchone()[0]

    found = one("PRAGMA integrity_check")
    if found != "ok":
        raise RunError(f"{path}: the copy is damaged, and probably the store too: {found}. Restore an earlier copy.")
    projects = one("SELECT count(*) FROM project")
    if not projects:
        raise DataError(f"{path}: holds no project, so there is nothing to copy. {missing_part(path)}")
    return projects, one("SELECT count(*) FROM label")

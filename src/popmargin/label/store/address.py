"""How a label store is named, and opened by its name."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from popmargin.errors import DataError, import_extra

if TYPE_CHECKING:
    from popmargin.label.store.label_store import LabelStore


_SUFFIXES = (".db", ".sqlite", ".sqlite3")


def open_store(url: str, *, create: bool = False) -> "LabelStore":
    """The label store, whose dependencies are an extra.

    Raises:
        DataError: there is no such file, and `create` is False.
        MissingExtraError: the extra is not installed.
    """
    for module in ("sqlalchemy", "alembic"):
        import_extra(module, "label")
    from popmargin.label.store.label_store import LabelStore

    if not create:
        refuse_missing(url)
    return LabelStore.open(url)


def refuse_missing(url: str) -> None:
    """Raise a DataError if the store is a file that is not there."""
    if not may_exist(url):
        path = url.removeprefix("sqlite:///")
        raise DataError(
            f"{path}: no such label store. Create one with: popmargin label import DATA --db {in_words(path)}"
        )


def in_words(url: str) -> str:
    """The address for a command that is shown: quoted for a shell, and without a password.

    Example:
        >>> in_words("postgresql://ann:secret@host/labels"), in_words("my labels.db")
        ('postgresql://ann@host/labels', "'my labels.db'")
    """
    return shlex.quote(re.sub(r"^([\w+.-]+://[^/@:]*):[^/@]+@", r"\1@", url))


def may_exist(url: str) -> bool:
    """Whether there is such a file; for a server, only opening the store can tell."""
    path = url.removeprefix("sqlite:///")
    return "://" in path or Path(path).is_file()


def is_store(source: str) -> bool:
    """Whether edges are named by a label store: `labels.db`, `labels.db#project` or the URL of a database.

    Example:
        >>> is_store("labels.db#answers"), is_store("edges.parquet")
        (True, False)
    """
    return "://" in source or source.partition("#")[0].endswith(_SUFFIXES)

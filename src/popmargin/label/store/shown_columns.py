"""Columns of the data that people see with a task, such as a stance or a source; no others are ever shown."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, select

from popmargin.errors import ConfigError, counted, did_you_mean
from popmargin.label.store.sql_tables import preference

_TELLING = ("id", "prompt", "strength", "soft_label", "unlabelled")
"""Texts that are shown anyhow, and what the data say about which response is better."""
_MOST = 12
_CHARACTERS = 1000
_PART = 10_000


def dump_names(names: Sequence[str] | None) -> str | None:
    """Names as they are stored; None for none."""
    return json.dumps(list(names), ensure_ascii=False) if names else None


def load_names(stored: str | None) -> tuple[str, ...]:
    """The names that a project's column `shown` holds."""
    return tuple(json.loads(stored)) if stored else ()


def check_shown(names: Sequence[str], known: Collection[str], source: str) -> None:
    """Refuse columns that cannot be shown.

    Args:
        names: of columns.
        known: the columns besides the texts and numbers that every row has.
        source: of the data, for messages.

    Raises:
        ConfigError: a column that the data lack, that would tell which response they prefer, or too many columns.
    """
    if len(names) > _MOST:
        raise ConfigError(f"{counted(len(names), 'column')} to show; choose at most {_MOST}, or people read no others.")
    allowed = [name for name in known if not _tells(name)]
    for name in names:
        if _tells(name):
            raise ConfigError(
                f"column '{name}' cannot be shown: it would repeat a text, or tell which response the data prefer. "
                f"Columns that can: {', '.join(allowed) or 'none'}."
            )
        if name not in known:
            raise ConfigError(f"{source} has no column '{name}' to show. {did_you_mean(name, allowed)}")


def _tells(name: str) -> bool:
    return name in _TELLING or name.startswith(("chosen", "rejected"))


def stored_names(connection: Connection, number: int) -> set[str]:
    """The columns of a project's preferences that could be shown."""
    found = {"annotator"}
    rows = connection.execute(
        select(preference.c.extra).where(preference.c.project == number, preference.c.extra.is_not(None))
    )
    for part in rows.scalars().partitions(_PART):
        found.update(name for text in set(part) for name in json.loads(text))
    return found


def shown_values(names: Sequence[str], extra: str | None, annotator: str | None) -> tuple[tuple[str, str], ...]:
    """The named columns of a preference that have a value, as texts, in the order of the names.

    Example:
        >>> shown_values(("source", "year"), '{"year": 2024, "source": "news", "secret": 1}', None)
        (('source', 'news'), ('year', '2024'))
    """
    if not names:
        return ()
    values: dict[str, Any] = {"annotator": annotator} | (json.loads(extra) if extra else {})
    return tuple((name, _text(values[name])) for name in names if values.get(name) is not None)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"

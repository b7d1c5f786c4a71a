"""The log of a project: what was changed while people label, when and by whom."""

from datetime import datetime

from sqlalchemy import Connection, select

from popmargin.label.store.answers import clean
from popmargin.label.store.records import Change
from popmargin.label.store.sql_tables import project_change

NOBODY = "unknown"
_NAME = 200


def log_change(
    connection: Connection, number: int, who: str, setting: str, before: object, after: object, now: datetime
) -> None:
    """Add a change of a project to its log; values are kept as texts, None as an empty one."""
    texts = ["" if value is None else clean(str(value)) for value in (before, after)]
    connection.execute(
        project_change.insert().values(
            project=number,
            at=now,
            who=clean(who)[:_NAME] or NOBODY,
            setting=setting,
            value_before=texts[0],
            value_after=texts[1],
        )
    )


def changes(connection: Connection, number: int) -> list[Change]:
    """The log of a project, oldest first."""
    rows = connection.execute(
        select(project_change).where(project_change.c.project == number).order_by(project_change.c.id)
    )
    return [
        Change(at=row.at, who=row.who, setting=row.setting, before=row.value_before, after=row.value_after)
        for row in rows
    ]

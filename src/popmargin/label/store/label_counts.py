"""How many labels a project has and wants, from counters, so that it takes no longer for a million items."""

from sqlalchemy import Connection, func, select

from popmargin.errors import DataError
from popmargin.label.store.items import active_people
from popmargin.label.store.sql_tables import annotator, project


def label_counts(connection: Connection, number: int) -> tuple[int, int, int]:
    """Items of a project, labels of people that count, and labels wanted.

    Raises:
        DataError: there is no such project.
    """
    found = connection.execute(select(project).where(project.c.id == number)).one_or_none()
    if found is None:
        raise DataError(f"There is no project {number}.")
    people = connection.execute(
        select(func.sum(annotator.c.done - annotator.c.repeats_done)).where(
            annotator.c.project == number, annotator.c.kind == "person", annotator.c.discarded.is_not(True)
        )
    )
    wanted = found.wanted + found.gold_items * active_people(connection, number)
    return found.items, int(people.scalar() or 0), wanted

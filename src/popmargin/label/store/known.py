"""Known answers of items: to the only question, or on any of a project's criteria.

The column `gold` of an item with a known answer is never empty. With criteria, `gold_criteria` has the answers by name,
as JSON, and `gold` the first of them, whichever criterion that is about.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, literal

from popmargin.data.questions import Kind, Verdict
from popmargin.errors import DataError, did_you_mean
from popmargin.label.store.gold_answers import check_gold
from popmargin.label.store.sql_tables import item
from popmargin.label.store.verdict_on import verdict_on

Known = Verdict | Mapping[str, Verdict | None]
"""The answer to an item: with criteria, by criterion; a verdict alone is that on the first. None takes one away."""


def known_of(gold: Verdict | None, stored: str | None, names: Sequence[str]) -> dict[str, Verdict]:
    """Criterion -> known answer, from an item's columns; a single question has the name "".

    Example:
        >>> known_of("tie", None, [""]), known_of("first", '{"kind": "first"}', ["clear", "kind"])
        ({'': 'tie'}, {'kind': 'first'})
    """
    if stored:
        return json.loads(stored)
    return {} if gold is None else {names[0]: gold}


def changed_known(
    had: Mapping[str, Verdict],
    given: Known | None,
    names: Sequence[str],
    kind: Kind,
    scale: int | None,
    where: str,
    *,
    size: int = 1,
) -> dict[str, Verdict]:
    """The known answers of an item after a change: criteria that are not named keep theirs, None takes all away.

    Args:
        had: those before, as of `known_of`.
        given: the change.
        names: of the project's criteria; one that is empty for a single question.
        kind: of the item.
        scale: of the project.
        where: begins messages.
        size: preferences in a ranking.

    Raises:
        DataError: an unknown criterion, or an answer that is none to the kind.
    """
    if given is None:
        return {}
    named: Mapping[str, Verdict | None] = {names[0]: given} if isinstance(given, str) else given
    after = dict(had)
    for name, verdict in named.items():
        if name not in names:
            asked = did_you_mean(name, names) if names[0] else "It asks a single question: give its answer alone."
            raise DataError(f"{where}: the project has no criterion '{name}'. {asked}")
        if verdict is None:
            after.pop(name, None)
            continue
        check_gold(verdict, kind, scale, size, f"{where}, criterion '{name}'" if name else where)
        after[name] = verdict
    return {name: after[name] for name in names if name in after}


def known_columns(known: Mapping[str, Verdict], names: Sequence[str]) -> dict[str, Any]:
    """An item's columns of known answers; `known` is in the order of the names."""
    stored = json.dumps(known) if known and names[0] else None
    return {"gold": next(iter(known.values()), None), "gold_criteria": stored}


def known_on_first(names: Sequence[str]) -> ColumnElement[Any]:
    """SQL: the known answer of an item to the only question, or on the first criterion."""
    if not names[0]:
        return item.c.gold
    named = verdict_on(item.c.gold_criteria, literal(names[0]))
    return case((item.c.gold_criteria.is_(None), item.c.gold), else_=named)

"""Several criteria a task: one answer has a verdict on each of them, all or none; the first is the project's own.

Everything that knows one verdict a label is about the first criterion. The table of labels keeps that one in `verdict`,
and those on the others as JSON beside it; `known.py` has the known answers of items.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from popmargin.data.questions import Kind, Verdict, verdicts_of
from popmargin.errors import ConfigError, DataError, did_you_mean
from popmargin.label.store.records import Criterion

MOST = 12
_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")
_SIDES = ("chosen", "rejected")
_QUESTION_CHARACTERS = 200


def criteria_of(pairs: Sequence[tuple[str, str]]) -> tuple[Criterion, ...]:
    """Criteria from names and questions, checked.

    Raises:
        ConfigError: a single one, too many, a name twice, or a name or question that cannot be used.
    """
    if len(pairs) == 1 or len(pairs) > MOST:
        raise ConfigError(
            f"{len(pairs)} criteria: give 2 to {MOST}. For a single one, say what is asked with --wording or in the "
            "guidelines."
        )
    found: dict[str, Criterion] = {}
    for name, question in pairs:
        if not _NAME.fullmatch(name) or any(side in name for side in _SIDES):
            raise ConfigError(
                f"criterion '{name}': a name becomes a column, so it has lower-case letters, digits and underscores, "
                "begins with a letter, has at most 30 characters, and not chosen or rejected in it."
            )
        if name in found:
            raise ConfigError(f"criterion '{name}' is given twice. Give each name once.")
        if not 1 <= len(question.strip()) <= _QUESTION_CHARACTERS:
            raise ConfigError(
                f"criterion '{name}' has no question of 1 to {_QUESTION_CHARACTERS} characters. Write it as: "
                f'"{name}: Which response is clearer?"'
            )
        found[name] = Criterion(name=name, question=question.strip())
    return tuple(found.values())


def dump_criteria(criteria: Sequence[Criterion]) -> str | None:
    """Criteria as a project keeps them; None for none."""
    pairs = [[one.name, one.question] for one in criteria]
    return json.dumps(pairs, ensure_ascii=False) if pairs else None


def load_criteria(stored: str | None) -> tuple[Criterion, ...]:
    """The criteria that a project's column holds."""
    return tuple(Criterion(name=name, question=question) for name, question in json.loads(stored)) if stored else ()


def names_in(criteria: Sequence[Criterion]) -> list[str]:
    """Names of a project's questions: those of its criteria, or one that is empty."""
    return [one.name for one in criteria] or [""]


def check_verdicts(
    criteria: Sequence[Criterion], given: Mapping[str, Verdict], kind: Kind, scale: int | None, *, both_bad: bool
) -> None:
    """Refuse an answer that does not have exactly one verdict on each criterion after the first.

    Raises:
        DataError: it names the criterion, and what is missing or wrong.
    """
    names = [one.name for one in criteria[1:]]
    for name in given:
        if name not in names:
            known = names or ["none"]
            raise DataError(f"the project has no further criterion '{name}'. {did_you_mean(name, known)}")
    for name in names:
        if name not in given:
            raise DataError(
                f"no answer on criterion '{name}'. An answer has a verdict on every criterion, or none is stored."
            )
        allowed = [one for one in verdicts_of(kind, scale) if one != "both_bad" or both_bad]
        if given[name] not in allowed:
            raise DataError(f"criterion '{name}': {given[name]!r} is no answer. {did_you_mean(given[name], allowed)}")


def dump_verdicts(given: Mapping[str, Verdict]) -> str | None:
    """Verdicts on the further criteria as a label keeps them; None without one."""
    return json.dumps(dict(sorted(given.items()))) if given else None


def load_verdicts(stored: str | None) -> dict[str, Any]:
    """Criterion -> verdict or known answer, without the first one."""
    return json.loads(stored) if stored else {}


def of_criterion(labels: Any, names: Sequence[str], name: str) -> Any:
    """The table of labels with the verdicts on one criterion.

    Labels without one, such as those from before, are left out. Known answers are those on the criterion.

    Args:
        labels: as of `LabelStore.labels`, with verdict and criteria, and with gold_criteria where there is gold.
        names: of the project's criteria, in their order.
        name: one of them.
    """
    if name == names[0]:
        return labels
    labels = _with(labels, "verdict", [load_verdicts(text).get(name) for text in labels["criteria"].to_pylist()])
    if "gold" in labels.column_names:
        labels = _with(labels, "gold", [load_verdicts(text).get(name) for text in labels["gold_criteria"].to_pylist()])
    return labels.filter(labels["verdict"].is_valid())


def _with(labels: Any, column: str, values: Sequence[Any]) -> Any:
    """The table with other values in a column."""
    return labels.set_column(labels.column_names.index(column), column, pa.array(values, labels[column].type))

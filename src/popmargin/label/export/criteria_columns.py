"""A column for each criterion: in tables of labels, and in preferences with the means of people's answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from popmargin.errors import ConfigError, did_you_mean
from popmargin.label.export.judged_wrong import DECIDED
from popmargin.label.export.mean_ratings import mean_ratings
from popmargin.label.store.criteria import load_verdicts, of_criterion
from popmargin.label.store.records import Project


def criteria_labels(labels: Any, project: Project) -> Any:
    """A table of labels with a column of verdicts for each criterion, by its name, in place of `criteria`.

    Where answers on criteria are known, `gold_NAME` has them.
    A name that the table has already gets `criterion_` in front.
    """
    stored = [load_verdicts(text) for text in labels["criteria"].to_pylist()]
    verdicts = labels["verdict"]
    known = [load_verdicts(text) for text in labels["gold_criteria"].to_pylist()]
    labels = labels.drop_columns(["criteria", "gold_criteria"])
    for place, one in enumerate(project.criteria):
        column = verdicts if place == 0 else pa.array([found.get(one.name) for found in stored], pa.string())
        name = f"criterion_{one.name}" if one.name in labels.column_names else one.name
        labels = labels.append_column(name, column)
    for one in project.criteria if any(known) else ():
        named = pa.array([found.get(one.name) for found in known], pa.string())
        labels = labels.append_column(f"gold_{one.name}", named)
    return labels


def put_criteria(
    columns: dict[str, list[Any]], labels: Any, project: Project, weights: Mapping[str, float] | None = None
) -> list[str]:
    """Add to preferences what people say on each criterion; returns the names of the new columns.

    Of ratings, the means of both responses: `chosen_rating_NAME`, `rejected_rating_NAME`. Of preferences, the share of
    votes for each response, a tie half for either: `chosen_share_NAME`, `rejected_share_NAME`. Columns of a side
    go with it wherever chosen and rejected are swapped.

    Args:
        columns: the preferences, as imported.
        labels: with kind, first, response, verdict, repeat_of and criteria.
        project: with criteria.
        weights: how much the labels of annotators count, by name; 1 for others.
    """
    names, added = [one.name for one in project.criteria], list[str]()
    for name in names:
        table = of_criterion(labels, names, name)
        rated = mean_ratings(table, columns, weights)
        if rated is not None:
            pairs: dict[str, Sequence[Any]] = {
                f"chosen_rating_{name}": rated.chosen,
                f"rejected_rating_{name}": rated.rejected,
            }
        else:
            shares = _shares(table, weights or {})
            chosen = [shares.get(key) for key in columns["id"]]
            rest = [None if share is None else 1.0 - share for share in chosen]
            pairs = {f"chosen_share_{name}": chosen, f"rejected_share_{name}": rest}
        columns |= {key: list(values) for key, values in pairs.items()}
        added += pairs
    return added


def labels_on(labels: Any, project: Project, criterion: str | None) -> Any:
    """The labels with their verdicts on one criterion of a project; None for the first, or the only question.

    Raises:
        ConfigError: the project has no such criterion.
    """
    names = [one.name for one in project.criteria]
    if criterion is None:
        return labels
    if criterion not in names:
        known = did_you_mean(criterion, names) if names else "It asks a single question."
        raise ConfigError(f"Project '{project.name}' has no criterion '{criterion}'. {known}")
    return of_criterion(labels, names, criterion)


def _shares(labels: Any, weights: Mapping[str, float]) -> dict[str, float]:
    """Preference -> share of the decided votes for its chosen response."""
    said: dict[str, list[tuple[float, float]]] = {}
    read = (labels[name].to_pylist() for name in ("kind", "first", "verdict", "annotator", "repeat_of"))
    for kind, key, verdict, who, repeat_of in zip(*read, strict=True):
        if kind == "preference" and repeat_of is None and verdict in DECIDED:
            vote = {"first": 1.0, "second": 0.0, "tie": 0.5}[verdict]
            said.setdefault(key, []).append((weights.get(who, 1.0), vote))
    return {
        key: sum(weight * vote for weight, vote in votes) / sum(weight for weight, _ in votes)
        for key, votes in said.items()
    }

"""Exports from the store: preferences with votes, ratings and strengths."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from popmargin.data.conversation import holds_tools
from popmargin.data.exchange import NEGATED, exchange
from popmargin.data.extra import as_dataset
from popmargin.data.formats.unlabelled import MARK
from popmargin.data.load_report import LoadReport, RowProblem
from popmargin.data.schema import (
    COLUMNS,
    NUMBER_COLUMNS,
    OPTIONAL_COLUMNS,
    TEXT_COLUMNS,
    Preferences,
    arrow_schema,
)
from popmargin.data.validate import against_soft_label, prefers_rejected
from popmargin.errors import ConfigError, DataError, counted, first_few
from popmargin.label.export.both_bad import OnBothBad, both_bad_shares, put_both_bad, reason
from popmargin.label.export.calibrated_models import ModelCalibration, with_calibration
from popmargin.label.export.counting_labels import counting_labels
from popmargin.label.export.criteria_columns import labels_on, put_criteria
from popmargin.label.export.graded_votes import calibrate_grades, graded_probabilities, mean_grades, together
from popmargin.label.export.judged_wrong import (
    DECIDED,
    OnWrong,
    Votes,
    check_wrong,
    probability,
    wrong_preferences,
)
from popmargin.label.export.mean_ratings import empty_ratings, put_ratings, ratings_decide
from popmargin.label.export.people_first import Models, people_first
from popmargin.label.export.pooled_votes import Pooling, pool_votes, soft_label
from popmargin.label.export.stored_images import image_features, images_of_table
from popmargin.label.export.unjudged import OnUnjudged, without_direction
from popmargin.label.projects.same_project import item_kinds
from popmargin.label.store.address import in_words
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Adjudication, Project
from popmargin.pop.strengths import half_normal_strengths

pc: Any = pyarrow.compute
_VOTE_COLUMNS = ("assignment", "item", "kind", "first", "second", "response", "annotator", "annotator_kind", "verdict",
                 "wrong", "confidence", "grade", "gold", "repeat_of", "criteria", "gold_criteria")  # fmt: skip
OnUnrated = Literal["keep", "drop"]
"""What to do with preferences whose responses are not both rated, when others are."""


def preferences_of(
    store: LabelStore,
    project: Project,
    *,
    strengths: Mapping[str, float] | None = None,
    wrong: OnWrong = "swap",
    unrated: OnUnrated = "keep",
    unjudged: OnUnjudged = "drop",
    both_bad: OnBothBad = "drop",
    votes: Votes = "probability",
    without: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    adjudication: Adjudication = "wins",
    models: Models = "fill",
    criterion: str | None = None,
    pool: Pooling | None = None,
    calibration: Mapping[str, ModelCalibration] | None = None,
) -> Preferences:
    """The imported preferences with all their columns, and what the labels say about them.

    Args:
        store: the store.
        project: whose preferences.
        strengths: id -> strength from 0; replaces the column `strength` where an id is given.
        wrong: what to do with preferences that most call wrong (see `wrong_preferences`): "swap" swaps chosen and
            rejected, and empties ratings, strength, margin and soft label if they contradict this; "drop" drops them;
            "keep" swaps nothing. A preference whose rejected response people rate higher is one of them;
            kept, it has no ratings.
        unrated: if people rated responses, what to do with preferences with an unrated response: "keep" leaves both
            ratings empty, "drop" leaves the preference out.
        unjudged: what to do with preferences whose direction nobody gave (see `without_direction`): "drop" leaves them
            out, "keep" keeps them in the imported order. Lone responses are left out in any case.
        both_bad: what to do with preferences that more than half of the votes call both bad: "drop" leaves them out,
            "keep" keeps what the other votes say. The column `both_bad` has the share of such votes.
        votes: weight of a label of kind "preference", in `soft_label` and in `wrong`: "probability", its confidence (1
            if it has none); "whole", always 1; "grades", the share of right answers of its grade, as estimated by
            `calibrate_grades`.
        without: names of annotators whose labels are left out, as are those of discarded ones.
        weights: how much each label of an annotator counts, by name, in `soft_label`, mean ratings and `wrong`, in
            place of the weight that the store has. Calibrated grades have weights of their own.
        adjudication: of items that an adjudicator has decided, "wins" uses only that label, "ignore" only the others.
        criterion: in a project with several, the one that decides; the first one by default.
        models: "fill" leaves out labels of judges and rewards where a person has decided, "equal" counts them too.
        pool: "dawid-skene" makes `soft_label` the probability of all votes together, each labeller counting by how
            often it is right (see `pool_votes`); None makes it their mean.
        calibration: what the confidences of models are worth, as of `calibrations_of`; None takes them as they are.

    Returns:
        The preferences in import order, with a report of what was swapped or left out. If labels of kind "preference"
        vote, `soft_label` is their mean probability that chosen is better, ½ for a tie; with "whole" it is the share of
        votes, with "grades" what the answers say together. Where answers have a grade, `grade` is their mean, positive
        where chosen is better. If responses were rated, the ratings are means over annotators only, and imported
        ratings and strengths, which are on another scale, are dropped; equal means stay, as a gap of 0. With a soft
        label below ½, for which loading swaps the responses, ratings and strengths that say the opposite are left
        empty. Everything else is as imported; of images, the files are.

    Raises:
        ConfigError: an unknown value of `wrong`, `unrated`, `unjudged`, `both_bad` or `votes`.
        DataError: strengths of preferences that the project does not have, below 0, or not finite; a project that asks
            for ratings, and has none yet; nothing is left; no annotator of a name in `without` or `weights`; grades
            that cannot be calibrated.
    """
    check_wrong(wrong)
    for name, value, known in (
        ("unrated", unrated, OnUnrated),
        ("unjudged", unjudged, OnUnjudged),
        ("both_bad", both_bad, OnBothBad),
        ("votes", votes, Votes),
    ):
        if value not in get_args(known):
            raise ConfigError(f"{name} is {value!r}; choose {', '.join(get_args(known))}.")
    if weights and votes == "grades":
        raise ConfigError("weights and votes='grades' exclude each other: calibrated grades have their own weights.")
    if pool and (weights or votes != "probability"):
        raise ConfigError("pool excludes weights and votes: it finds out itself how much each labeller's votes count.")
    if calibration is not None and (pool or votes != "probability"):
        raise ConfigError("calibration is of confidences, which pool and other votes do not read. Choose one of them.")
    columns = store.preference_columns(project.id)
    if columns["id"] and not any(side is not None for side in columns["rejected"]):
        raise DataError(
            f"Project '{project.name}' has single responses, not preferences. Export what people say of them with "
            "--as ratings."
        )
    imported = {name: list(columns[name]) for name in ("id", "rejected", "soft_label", MARK) if name in columns}
    counting = counting_labels(
        store, project, _VOTE_COLUMNS, without=without, adjudication=adjudication, models=models, weights=weights,
        pool=pool is not None,
    )  # fmt: skip
    if votes == "grades":
        counting = replace(counting, weights={})
    weights, notes = counting.weights, list[str]()
    if project.criteria:
        on_each = put_criteria(columns, people_first(counting.labels, models), project, weights)
        notes.append(f"what people say on each criterion: {', '.join(on_each)}")
    every = labels_on(counting.labels, project, criterion)
    if calibration is not None:
        every = with_calibration(every, calibration)
    labels = people_first(every, models)
    before = len(notes)
    against, missing = put_ratings(columns, labels, notes, weights)
    kinds = item_kinds(store, project)
    rated = len(notes) > before  # something was put
    if not rated and "rating" in kinds:
        raise DataError(
            f"Nobody has rated a response of project '{project.name}' yet: the ratings would be those of the imported "
            "data. Rate some first (popmargin annotate), or use the data as they are."
        )
    notes += counting.notes()
    notes += [one.note() for one in (calibration or {}).values()]
    if strengths is not None:
        _put_strengths(columns, strengths)
    grades = mean_grades(labels)
    if votes == "grades":
        graded = calibrate_grades(labels)
        labels = graded_probabilities(labels, graded)
        notes.append(graded.note())
    voted = _soft_labels(labels, votes, weights) if pool is None else _pooled_labels(every, models, notes)
    by_most = wrong_preferences(labels, votes, weights)
    if not voted and "preference" in kinds and unjudged == "keep":
        notes.append("nobody has judged a preference yet: order and soft labels are those of the imported data")
    if votes == "grades" or pool:  # what the answers say together also says which response is better
        by_most = {key: counts for key, counts in by_most.items() if voted.get(key, 0.0) < 0.5}
    for row, key in enumerate(columns["id"]):
        if key in voted:
            columns["soft_label"][row] = voted[key]
    ties = sum(value == 0.5 for value in voted.values())
    if ties:
        notes.append(
            f"{ties} are ties of the votes, with a soft_label of ½: their order means nothing, so leave them out for "
            "objectives without soft labels"
        )
    called = {row: by_most[key] for row, key in enumerate(columns["id"]) if key in by_most}
    rows = sorted({*against, *called})
    judged = {*rows, *(row for row, key in enumerate(columns["id"]) if key in voted)}
    if rated:
        judged |= set(range(len(columns["id"]))) - set(missing)
    out: dict[int, tuple[str, str, str]] = {}
    out |= {
        row: reason
        for row, reason in without_direction(store, project, imported, judged).items()
        if unjudged == "drop" or reason[0] == "alone"
    }
    bad = put_both_bad(columns, both_bad_shares(labels, weights), both_bad, out, notes)
    _tell_unjudged(store, project, columns, out, notes)
    if rated:
        ratings_decide(columns, judged)
    if MARK in columns:  # only where the order is still no label
        columns[MARK] = [None if row in judged or row in out else mark for row, mark in enumerate(columns[MARK])]
    emptied = sum(_turn(columns, row) for row in rows) if wrong == "swap" else 0
    turned = set(rows) if wrong == "swap" else set[int]()
    if grades:
        columns["grade"] = [
            None if key not in grades else -grades[key] if row in turned else grades[key]
            for row, key in enumerate(columns["id"])
        ]
    if rows:
        done = {"swap": "chosen and rejected swapped", "drop": "left out", "keep": "kept as is"}[wrong]
        names = first_few([columns["id"][row] for row in rows])
        notes.append(f"{len(rows)} marked wrong by most annotators who judged them ({names}): {done}")
    if emptied:
        notes.append(
            f"{emptied} of them had ratings, a strength, margin or soft label that say the opposite; these are left "
            "empty (--wrong drop leaves the preferences out, for objectives that need them)"
        )
    if wrong == "keep" and against:
        empty_ratings(columns, against)
        notes.append(f"{len(against)} of them are rated the other way round, so their ratings are left empty")
    if unrated == "drop":
        out |= dict.fromkeys(missing, ("unrated", "a response has no rating.", "keep it with --unrated keep."))
    if wrong == "drop":
        out |= {row: _reason(called.get(row), against.get(row)) for row in rows}
    out |= {row: reason(share) for row, share in bad.items()}
    unsaid = sum(_unsay(columns, row) for row in range(len(columns["id"])) if row not in out)
    if unsaid:
        notes.append(
            f"{unsaid} have a soft label below ½ but ratings or a strength that say the opposite; the latter are "
            f"left empty"
        )
    return _table(store, project, columns, out, notes)


def _table(
    store: LabelStore,
    project: Project,
    columns: dict[str, list[Any]],
    out: Mapping[int, tuple[str, str, str]],
    notes: Sequence[str],
) -> Preferences:
    """The columns without the rows that are left out."""
    source, count = f"{store.name}, project '{project.name}'", len(columns["id"])
    problems = [_problem(source, row, *out[row]) for row in sorted(out)]
    others = {
        name: values for name, values in columns.items() if name not in COLUMNS and any(v is not None for v in values)
    }
    report = LoadReport(
        source, "label store", "canonical", count, count, count - len(out), tuple(problems),
        columns_used={name: name for name in columns if name not in others or name in OPTIONAL_COLUMNS},
        columns_kept=tuple(name for name in others if name not in OPTIONAL_COLUMNS), notes=tuple(notes),
    )  # fmt: skip
    tools = any(holds_tools(columns[name]) for name in TEXT_COLUMNS)
    schema = arrow_schema(conversational=bool(project.conversational), tools=tools)
    table = pa.Table.from_pydict({name: columns[name] for name in COLUMNS}, schema=schema)
    if project.images:  # those of the names as they stand now, so they need no swapping
        for name, column in images_of_table(store, table).items():
            table = table.append_column(name, column)
    everything = Preferences(as_dataset(table, image_features() if project.images else {}), report).with_columns(others)
    return everything.select([row for row in range(count) if row not in out]) if out else everything


def _tell_unjudged(
    store: LabelStore, project: Project, columns: Mapping[str, Any], out: Mapping[int, Any], notes: list[str]
) -> None:
    count = len(columns["id"])
    if out and len(out) == count:
        raise DataError(
            f"Nobody has judged a preference of project '{project.name}' yet: the order of the responses would be that "
            f"of the imported data. Label some first (popmargin annotate --db {in_words(store.name)}), or keep the "
            "imported order with --unjudged keep."
        )
    alone = [row for row in out if out[row][0] == "alone"]
    if alone:
        names = first_few([columns["id"][row] for row in alone])
        notes.append(
            f"{counted(len(alone), 'prompt')} with a single response left out, since it is not a preference ({names}): "
            "--as ratings has them"
        )
    if len(out) > len(alone):
        names = first_few([columns["id"][row] for row in out if out[row][0] != "alone"])
        notes.append(
            f"{len(out) - len(alone)} of {counted(count - len(alone), 'preference')} left out, since nobody has said "
            f"which response is better ({names}): --unjudged keep keeps them in the imported order"
        )


def _reason(called: tuple[int, int] | None, rated: tuple[float, float] | None) -> tuple[str, str, str]:
    if called is not None:
        message = f"marked wrong by {called[0]} of {counted(sum(called), 'annotator')}."
    else:
        assert rated is not None
        message = f"people rated chosen {rated[0]:g} and rejected {rated[1]:g}."
    return "called_wrong", message, "keep it, or swap its responses, with --wrong."


def _problem(source: str, row: int, kind: str, message: str, remedy: str) -> RowProblem:
    return RowProblem(
        source=source,
        position=row,
        by_line=False,
        candidate=row,
        column=None,
        kind=kind,
        message=message,
        remedy=remedy,
        fatal=False,
    )


def _put_strengths(columns: dict[str, list[Any]], strengths: Mapping[str, float]) -> None:
    unknown = set(strengths) - set(columns["id"])
    if unknown:
        raise DataError(
            f"The project lacks {counted(len(unknown), 'preference')} that have a strength, such as {min(unknown)!r}. "
            "Fit the strengths on this project's edges."
        )
    wrong = [key for key, value in strengths.items() if not math.isfinite(value)]
    if wrong:
        raise DataError(
            f"{counted(len(wrong), 'strength is', 'strengths are')} not finite, for example that of {wrong[0]!r}. "
            "Remove these rows."
        )
    below = [key for key, value in strengths.items() if value < 0]
    if below:
        raise DataError(
            f"{counted(len(below), 'strength is', 'strengths are')} negative, for example that of {below[0]!r}; "
            "training needs strengths of 0 or more. Use the file that pop scale wrote, or swap chosen and rejected in "
            "these rows."
        )
    columns["strength"] = [strengths.get(key, old) for key, old in zip(columns["id"], columns["strength"], strict=True)]


def _soft_labels(labels: Any, votes: Votes, weights: Mapping[str, float]) -> dict[str, float]:
    """Preference id -> weighted mean over its labels of the probability that chosen is better; with grades, what the
    labels say together."""
    said: dict[str, list[tuple[float, float]]] = {}
    single = labels.filter(pc.and_(pc.equal(labels["kind"], "preference"), pc.is_null(labels["repeat_of"])))
    read = (single[name].to_pylist() for name in ("first", "verdict", "confidence", "annotator"))
    for key, verdict, confidence, who in zip(*read, strict=True):
        if verdict in DECIDED:
            sure, weight = probability(confidence, votes), weights.get(who, 1.0)
            said.setdefault(key, []).append((weight, {"first": sure, "second": 1.0 - sure, "tie": 0.5}[verdict]))
    if votes == "grades":
        return {key: together([share for _, share in values]) for key, values in said.items()}
    return {
        key: sum(weight * share for weight, share in values) / sum(weight for weight, _ in values)
        for key, values in said.items()
    }


def _pooled_labels(labels: Any, models: Models, notes: list[str]) -> dict[str, float]:
    """Preference id -> probability that chosen is better, from all votes on it together."""
    single = labels.filter(pc.equal(labels["kind"], "preference"))
    rows = single.select(["item", "first", "annotator", "annotator_kind", "verdict", "repeat_of"]).to_pylist()
    pooled = pool_votes(rows, models)
    notes += pooled.notes()
    names = {row["item"]: row["first"] for row in rows}
    return {names[item]: soft_label(chances) for item, chances in pooled.chances.items()}


def _turn(columns: dict[str, list[Any]], row: int) -> bool:
    """Swap the responses of a row and empty what says the opposite; returns whether anything did."""
    values = {name: column[row] for name, column in columns.items()}
    exchange(values)
    better, worse, label = (values[name] for name in ("chosen_rating", "rejected_rating", "soft_label"))
    opposite = {name for name in NEGATED if values.get(name) is not None and values[name] < 0}
    opposite |= {"soft_label"} if label is not None and label < 0.5 else set[str]()
    opposite |= {"chosen_rating", "rejected_rating"} if None not in (better, worse) and better < worse else set[str]()
    for name, value in values.items():
        columns.setdefault(name, [None] * len(columns["id"]))[row] = None if name in opposite else value
    return bool(opposite)


def _unsay(columns: dict[str, list[Any]], row: int) -> bool:
    """Empty what contradicts a soft label below ½, since loading refuses it; returns whether anything did."""
    draft = {name: columns[name][row] for name in NUMBER_COLUMNS}
    opposite = {error.column for error in against_soft_label(draft)} if prefers_rejected(draft) else set[str | None]()
    if "chosen_rating" in opposite:
        empty_ratings(columns, [row])
    if "strength" in opposite:
        columns["strength"][row] = None
    return bool(opposite)


def read_strengths(path: Path) -> dict[str, float]:
    """Strengths by id from a Parquet file with the columns id and strength.

    Strengths from `pop scale` are converted as by `pop scale --as strength`, since a scale has its zero in the middle.

    Raises:
        DataError: there is no such file, or it cannot be read, lacks a column, names an id twice, or a strength is not
            a number.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Fit strengths with: popmargin pop scale EDGES --data DATA --out {path}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). Fit the strengths again.") from error
    for name in ("id", "strength"):
        if name not in table.column_names:
            raise DataError(
                f"{path}: no column '{name}'. A strengths file is Parquet with the columns id and strength."
            )
    ids = table["id"].to_pylist()
    if len(set(ids)) != len(ids):
        raise DataError(f"{path}: an id occurs more than once. Keep one row per preference.")
    try:
        numbers = table["strength"].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}, column 'strength': not numbers ({error}). Write it as floats.") from error
    strengths = pc.fill_null(numbers, math.nan).to_numpy()
    if "standard_error" in table.column_names:
        strengths = half_normal_strengths(strengths)
    return dict(zip(ids, strengths.tolist(), strict=True))

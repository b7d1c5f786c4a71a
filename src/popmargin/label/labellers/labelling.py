"""Running a labeller: its verdicts go into the store or become PoP edges."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from popmargin.data.questions import PreferenceText
from popmargin.errors import DataError
from popmargin.generate.spending import Forecast
from popmargin.judges.backends import ServerBackend, refuse_unasked
from popmargin.judges.comparing import Judge
from popmargin.judges.labeller import Account, Labeller, Opinion, Question
from popmargin.label.labellers.numeric import RewardLabeller
from popmargin.label.store.label_store import LabelStore
from popmargin.pop.edges import PopEdges

_OF_PEOPLE = {"rating": "ratings", "rank": "rankings"}
"""Kinds of items that labellers leave to people."""
BATCH = 512  # questions between two writes to the store


def label_pairs(
    labeller: Labeller,
    pairs: Iterable[tuple[PreferenceText, PreferenceText]],
    account: Account | None = None,
    *,
    progress: bool = False,
) -> PopEdges:
    """PoP edges from a labeller, without a store.

    Args:
        labeller: see `popmargin.label.labellers.load.load_labeller`.
        pairs: pairs of preferences.
        account: usage is added to it.
        progress: show a progress bar.

    Returns:
        One edge for each pair with a verdict; ties have tie=True, and pairs without a verdict ("unsure") are counted
        in `parameters`. The same pairs give the same edges.

    Raises:
        DataError: a preference is paired with itself.
        RunError: the judge's budget ended before all were asked; the answers so far are in its cache.
    """
    account = Account() if account is None else account
    questions = [Question("pop", first, second) for first, second in pairs]
    for question in questions:
        if question.second is not None and question.first.id == question.second.id:
            raise DataError(f"The preference '{question.first.id}' is paired with itself; PoP compares two.")
    opinions = labeller.label(questions, account, progress=progress)
    refuse_unasked(labeller, opinions)
    rows: dict[str, list[Any]] = {name: [] for name in ("stronger", "weaker", "tie", "confidence")}
    for question, opinion in zip(questions, opinions, strict=True):
        if opinion.verdict == "unsure" or question.second is None:
            continue
        sides = (question.first.id, question.second.id)
        stronger, weaker = sides[::-1] if opinion.verdict == "second" else sides
        values = (stronger, weaker, opinion.verdict == "tie", opinion.confidence)
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    count = len(rows["stronger"])
    table = pa.table(
        {
            "stronger": pa.array(rows["stronger"], pa.string()),
            "weaker": pa.array(rows["weaker"], pa.string()),
            "source": pa.array([labeller.kind] * count, pa.string()),
            "annotator": pa.array([labeller.name] * count, pa.string()),
            "tie": pa.array(rows["tie"], pa.bool_()),
            "confidence": pa.array(rows["confidence"], pa.float64()),
        }
    )
    unsure = len(questions) - count
    return PopEdges(table, {"comparisons": len(questions), "unsure": unsure, "labeller": labeller.name})


def label_store(
    store: LabelStore,
    project: int,
    labeller: Labeller,
    account: Account | None = None,
    *,
    again: bool = False,
    at_once: int = BATCH,
    progress: bool = False,
) -> int:
    """Label every comparison of a project that the labeller has not labelled yet, as a separate annotator.

    Args:
        store: where the items are.
        project: its id.
        labeller: who labels; an annotator with its name is created if missing.
        account: usage is added to it.
        again: also ask again about "unsure" items, after all new ones; a different verdict or reason is a new revision
            of the label.
        at_once: questions between two writes to the store.
        progress: show progress bars.

    Returns:
        New labels and revisions in the store. Where a budget ends, what was asked in full is stored. Ratings and
        rankings are left to people: labellers only compare.

    Raises:
        DataError: the project asks only for ratings or rankings, about several criteria, or for images and the
            labeller reads texts; nothing was asked.
    """
    account = Account() if account is None else account
    _refuse_other_questions(store, project, labeller)
    annotator = _annotator(store, project, labeller)
    unsure = _unsure(store, project, labeller.name) if again else {}
    revisions = {item: revision for item, (revision, _) in unsure.items()}
    written = 0
    for rows in list(_batches(store, project, annotator, unsure, at_once)):
        before = account.unasked
        opinions = labeller.label(_questions(store, project, rows), account, progress=progress)
        changed = [
            (row, opinion)
            for row, opinion in zip(rows, opinions, strict=True)
            if opinion.asked
            and (row["item"] not in unsure or (opinion.verdict, opinion.note) != ("unsure", unsure[row["item"]][1]))
        ]
        if annotator is None and (changed or not account.unasked):
            # Only now, so that a labeller that fails immediately leaves nothing behind.
            annotator = store.add_annotator(project, labeller.name, kind=labeller.kind)[0].id
        if annotator is not None and changed:
            written += store.record_many(annotator, _verdicts(changed, labeller.name, revisions))
        if account.unasked > before:
            break
    return written


def forecast_store(store: LabelStore, project: int, labeller: Labeller, *, again: bool = False) -> Forecast | None:
    """What `label_store` will ask of a judge on a server; None for other labellers, which cost nothing."""
    _refuse_other_questions(store, project, labeller)
    if not isinstance(labeller, Judge) or not isinstance(labeller.backend, ServerBackend):
        return None
    found = Forecast()
    unsure = _unsure(store, project, labeller.name) if again else {}
    for rows in _batches(store, project, _annotator(store, project, labeller), unsure, BATCH):
        asked = labeller.backend.forecast(labeller.prompts(_questions(store, project, rows)))
        found += replace(asked, questions=len(rows))
    return found


def _questions(store: LabelStore, project: int, rows: Sequence[Mapping[str, Any]]) -> list[Question]:
    ids = {name for row in rows for name in (row["first"], row["second"]) if name is not None}
    texts = store.texts(project, sorted(ids))
    return [
        Question(row["kind"], texts[row["first"]], None if row["second"] is None else texts[row["second"]])
        for row in rows
    ]


def count_unsure(store: LabelStore, project: int, name: str) -> tuple[int, int]:
    """Number of current labels of a labeller, and of those that are "unsure"."""
    labels = store.labels(project, columns=["annotator", "verdict"])
    verdicts = [row["verdict"] for row in labels.to_pylist() if row["annotator"] == name]
    return len(verdicts), verdicts.count("unsure")


def store_strengths(store: LabelStore, project: int) -> dict[str, float]:
    """Strength of every preference of a project: its own, or its rating gap; nan if unknown."""
    columns = store.preference_columns(project)
    names = ("id", "strength", "chosen_rating", "rejected_rating")
    return {
        name: strength if strength is not None else math.nan if None in (chosen, rejected) else chosen - rejected
        for name, strength, chosen, rejected in zip(*(columns[column] for column in names), strict=True)
    }


def _refuse_other_questions(store: LabelStore, project: int, labeller: Labeller) -> None:
    """Refuse a project with questions that a labeller does not answer, before anything is paid.

    Of images a labeller of texts would judge the names.
    """
    (found,) = (one for one in store.projects() if one.id == project)
    kinds = {kind for batch in store.items(project) for kind in batch["kind"].unique().to_pylist()}
    if kinds and kinds <= set(_OF_PEOPLE):
        asked = " and ".join(name for kind, name in _OF_PEOPLE.items() if kind in kinds)
        raise DataError(
            f"This project asks for {asked}, but labellers make comparisons. Make a separate project for the "
            "comparisons: popmargin label import DATA --project NAME"
        )
    if found.criteria:
        raise DataError(
            f"This project asks about several criteria, and {labeller.name} gives one verdict. Nothing was asked. Make "
            "a project for each criterion (popmargin label import DATA --project NAME), and ask with a prompt of its "
            "own (--preference-prompt)."
        )
    able = labeller.kind == "ratings" or (isinstance(labeller, RewardLabeller) and labeller.of_images)
    if not able and found.images:
        raise DataError(
            f"The responses of this project are images, and {labeller.name} reads texts. Nothing was asked. Let people "
            "label them (popmargin annotate), or a reward of images: a function of (prompts, images)."
        )


def _annotator(store: LabelStore, project: int, labeller: Labeller) -> int | None:
    known = {annotator.name: annotator for annotator in store.annotators(project)}
    if labeller.name not in known:
        return None
    if known[labeller.name].kind != labeller.kind:
        raise DataError(
            f"The project already has a {known[labeller.name].kind} named '{labeller.name}'. Choose another name for "
            "the labeller with --name."
        )
    return known[labeller.name].id


def _unsure(store: LabelStore, project: int, name: str) -> dict[int, tuple[int, str]]:
    """Items that a labeller was unsure of: item -> (revision, note)."""
    labels = store.labels(project, columns=["item", "annotator", "verdict", "revision", "note"])
    return {
        row["item"]: (row["revision"], row["note"])
        for row in labels.to_pylist()
        if row["annotator"] == name and row["verdict"] == "unsure"
    }


def _batches(
    store: LabelStore, project: int, annotator: int | None, unsure: Mapping[int, Any], at_once: int
) -> Iterator[list[dict[str, Any]]]:
    """Items not yet labelled by the labeller, then those to ask again."""
    rows = [row for batch in store.items(project, unlabelled_by=annotator) for row in batch.to_pylist()]
    if unsure:
        rows += [row for batch in store.items(project) for row in batch.to_pylist() if row["item"] in unsure]
    rows = [row for row in rows if row["kind"] not in _OF_PEOPLE]
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def _verdicts(given: Sequence[tuple[dict[str, Any], Opinion]], name: str, revisions: Mapping[int, int]) -> Any:
    rows, opinions = [row for row, _ in given], [opinion for _, opinion in given]
    count = len(rows)
    requests = [
        hashlib.sha256("\0".join([name, str(row["item"]), *_revised(row["item"], revisions)]).encode()).hexdigest()[:32]
        for row in rows
    ]
    return pa.table(
        {
            "item": pa.array([row["item"] for row in rows], pa.int64()),
            "verdict": pa.array([opinion.verdict for opinion in opinions], pa.string()),
            "confidence": pa.array([opinion.confidence for opinion in opinions], pa.float64()),
            "seconds": pa.nulls(count, pa.float64()),
            "note": pa.array([opinion.note for opinion in opinions], pa.string()),
            "request": pa.array(requests, pa.string()),
            "swap_pairs": pa.array([False] * count),
            "swap_first": pa.array([False] * count),
            "swap_second": pa.array([False] * count),
        }
    )


def _revised(item: int, revisions: Mapping[int, int]) -> list[str]:
    """What distinguishes a repeated answer from the first one."""
    return [str(revisions[item])] if item in revisions else []

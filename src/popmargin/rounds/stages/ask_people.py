"""Asking people, through a label store: a stage that puts questions in, and one that waits for the answers."""

import shlex
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from popmargin.account import Step
from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import ConfigError, DataError, RunError, WaitingError
from popmargin.files import whole_file
from popmargin.label.store.address import may_exist, open_store
from popmargin.pop.active import ActiveSampler
from popmargin.pop.edges import PopEdges
from popmargin.rounds.plan import Output, Plan, Stage, Waiting, Work
from popmargin.rounds.stages.pair_responses import about_pairs
from popmargin.statistics.intervals import Clusters
from popmargin.statistics.jackknife import share_of_sums

if TYPE_CHECKING:  # what they need is an extra, and the recipe is for those who label otherwise, too
    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.store.records import Project

Ask = Literal["preference", "pop"]


def add_people(
    plan: Plan,
    name: str,
    pairs: Output,
    *,
    store: str,
    project: str,
    ask: Ask,
    overlap: int,
    seed: int,
    budget: int | None = None,
    batches: int = 1,
) -> Stage:
    """Append the asking and the waiting; the outputs of the second are `preferences`, and `edges` for kind `pop`.

    Args:
        plan: of the recipe.
        name: of the stages, below which they are `ask` and `answers`; those of earlier batches have a number.
        pairs: preferences to ask about.
        store: a label store: a file, or a database URL.
        project: its project; made when missing.
        ask: `preference`: which response is better; `pop`: which of two preferences is stronger.
        overlap: people for each question.
        seed: of the order, and of the pairs of preferences.
        budget: with `pop`: ask about so many pairs of preferences, the most informative ones (`pop/active.py`); None
            draws as many as there are preferences.
        batches: the budget is asked in so many parts, each chosen from the answers to those before.
    """
    where = {"store": store, "project": project, "ask": ask, "overlap": overlap}
    answers: Stage | None = None
    for number in range(1, batches + 1):
        end = "" if number == batches else f"-{number}"
        before: dict[str, Output | Path] = {} if answers is None else {"before": answers["edges"]}
        total = {} if budget is None else {"questions": round(budget * number / batches)}
        asked = plan.add(
            f"{name}/ask{end}",
            ask_stage,
            inputs={"pairs": pairs} | before,
            settings=where | {"seed": seed} | total,
            outputs={"asked": "asked.txt"},
        )
        answers = plan.add(
            f"{name}/answers{end}",
            answers_stage,
            inputs={"pairs": pairs, "asked": asked["asked"]},
            settings=where | ({"batch": number} if end else {}),
            outputs={"preferences": "preferences.parquet"} | ({"edges": "edges.parquet"} if ask == "pop" else {}),
            waits=partial(missing_answers, folder=name),
        )
    assert answers is not None
    return answers


def ask_stage(work: Work) -> dict[str, Any]:
    """Put the questions into the store; those that are there already stay."""
    settings = work.settings
    data = _without_ratings(load_preferences(work.inputs["pairs"], ties="keep"))
    if "before" in work.inputs:
        with _questions(settings, work.folder.parent) as (store, project):
            _ask_more(store, project, settings)
            items = store.progress(project.id).items
    else:
        with open_store(settings["store"], create=True) as store:
            from popmargin.label.projects.open_project import open_project

            edges = first_pairs(data, settings["questions"], settings["seed"]) if "questions" in settings else None
            try:
                project = open_project(
                    store,
                    data,
                    settings["project"],
                    kind=settings["ask"],
                    edges=edges,
                    overlap=settings["overlap"],
                    seed=settings["seed"],
                    say=lambda line: work.say(f"  {line}"),
                )
            except (ConfigError, DataError) as error:  # there is no --project here
                raise type(error)(str(error).replace("--project NAME", "--recipe.project NAME")) from error
            items = store.progress(project.id).items
    wanted = settings.get("questions", items)
    if items < wanted:
        work.say(f"  {items} of {wanted} questions are asked: there are no other pairs of preferences")
    with whole_file(work.outputs["asked"]) as partial:
        partial.write_text(f"{items}\n", encoding="utf-8")
    return {"questions": items}


def first_pairs(data: Preferences, count: int, seed: int) -> PopEdges:
    """Pairs of preferences to ask about before anything is answered; which side is called stronger means nothing."""
    pairs = ActiveSampler(data.ids, seed=seed).ask(count)
    return PopEdges.from_columns([first for first, _ in pairs], [second for _, second in pairs])


def _ask_more(store: "LabelStore", project: "Project", settings: Mapping[str, Any]) -> None:
    """Add the pairs of preferences that are most informative after the answers so far."""
    from popmargin.label.export.pop_edges import pop_edges

    asked = [(row["first"], row["second"]) for batch in store.items(project.id) for row in batch.to_pylist()]
    wanted = settings["questions"] - len(asked)
    if wanted < 1:  # they were added before the stage was killed
        return
    sampler = ActiveSampler(store.preference_columns(project.id)["id"], seed=settings["seed"])
    edges, _ = pop_edges(store, project)
    if len(edges):
        sampler.tell(edges)
    sampler.pass_over(asked)
    pairs = sampler.ask(wanted)
    if pairs:
        store.add_items(project.id, "pop", [first for first, _ in pairs], [second for _, second in pairs])


@contextmanager
def _questions(settings: Mapping[str, Any], folder: str | Path) -> Generator[tuple["LabelStore", "Project"]]:
    """The store and the project in which an earlier stage has put its questions; `folder` holds the stages that ask.

    Raises:
        RunError: the store is gone, or holds no such project any more.
    """
    remedy = f"Put it back; or delete the folder {folder}, to ask again."
    if not may_exist(settings["store"]):
        raise RunError(f"{settings['store']}: the label store that holds the questions is gone. {remedy}")
    with open_store(settings["store"]) as store:
        found = next((project for project in store.projects() if project.name == settings["project"]), None)
        if found is None:
            raise RunError(
                f"{settings['store']}: project '{settings['project']}', which holds the questions, is gone. {remedy}"
            )
        yield store, found


def missing_answers(settings: Mapping[str, Any], folder: str | Path) -> Waiting | None:
    """How many questions people have answered, and where the others are asked; None once all are answered.

    Raises:
        RunError: the questions are gone.
    """
    with _questions(settings, folder) as (store, project):
        items = store.progress(project.id).items
        counts = Counter(store.labels(project.id, columns=("item",))["item"].to_pylist())
    done = sum(count >= settings["overlap"] for count in counts.values())
    if done >= items:
        return None
    where = shlex.join(["--db", settings["store"], "--project", settings["project"]])
    return Waiting(done, items, f"Answer with: popmargin annotate {where}, or popmargin label judge {where} --judge …")


def answers_stage(work: Work) -> dict[str, Any]:
    """Take the answers out, once all are there.

    Raises:
        WaitingError: some are missing; it says how to give them.
        RunError: no answer can be trained on, or the questions are gone.
    """
    settings = work.settings
    waiting = missing_answers(settings, work.folder.parent)
    if waiting is not None:
        raise WaitingError(f"{waiting}. {waiting.how}")
    with _questions(settings, work.folder.parent) as (store, project):
        from popmargin.label.export.pop_edges import pop_edges
        from popmargin.label.export.preferences import preferences_of

        if settings["ask"] == "pop":
            edges, report = pop_edges(store, project)
            if "batch" not in settings and all(edges.table["tie"].to_pylist()):
                raise RunError(
                    f"No answer of project '{project.name}' says which preference is stronger ({report}), so there is "
                    "nothing to train on."
                )
            edges.save(work.outputs["edges"])
            _without_ratings(load_preferences(work.inputs["pairs"])).save(work.outputs["preferences"])
            return {"edges": len(edges), "report": str(report)}
        answered = preferences_of(store, project, unjudged="keep")  # `_decided` leaves these out, and ties
    kept, left_out = _decided(answered)
    if not kept:
        raise RunError(
            f"No answer of project '{settings['project']}' says which response is better: {left_out}. There is nothing "
            "to train on."
        )
    answered.select(kept).save(work.outputs["preferences"])
    preferences = load_preferences(work.outputs["preferences"])  # as it is trained on: the better response is chosen
    left_out = answered.report.left_out | left_out
    pairs = {"pairs": len(preferences)}
    account = work.tell(Step(name="answers", rows_in=answered.report.rows_in, kept=pairs, left_out=left_out))
    return about_pairs(preferences) | {"left_out": left_out, "account": account} | _trusted(preferences)


def _decided(answered: Preferences) -> tuple[list[int], dict[str, int]]:
    """Rows whose answers name a better response, and how many do not, by reason.

    Objectives without soft labels would otherwise train on these in the order in which they were asked.
    """
    known = "soft_label" in answered.columns
    label = answered.column("soft_label") if known else np.full(len(answered), np.nan)
    counts = {"tied answers": int((label == 0.5).sum()), "unsure answers": int(np.isnan(label).sum())}
    kept = np.flatnonzero(np.isfinite(label) & (label != 0.5)).tolist()
    return kept, {reason: count for reason, count in counts.items() if count}


def _trusted(preferences: Preferences) -> dict[str, Any]:
    """How often the answers agree with the reward of the evaluation, if it scored the responses."""
    if not {"chosen_trusted", "rejected_trusted"} <= set(preferences.columns):
        return {}
    gaps = preferences.column("chosen_trusted") - preferences.column("rejected_trusted")
    known = np.flatnonzero(np.isfinite(gaps) & (gaps != 0))
    groups = Clusters([preferences.prompt_keys[row] for row in known])
    share = share_of_sums(groups.sums(np.stack([gaps[known] > 0, np.ones(len(known))], axis=1).astype(float)))
    return {"agreement": {"overall": share.to_dict(), "curve": [], "pairs": len(known)}}


def _without_ratings(pairs: Preferences) -> Preferences:
    """The pairs without the scores that paired them: the answers take their place."""
    scores = [name for name in pairs.columns if name in ("chosen_rating", "rejected_rating", "strength")]
    return pairs.with_columns(dict.fromkeys(scores))

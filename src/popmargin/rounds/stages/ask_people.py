"""Asking people, through a label store: a stage that puts questions in, and one that waits for the answers."""

from collections import Counter
from typing import Any, Literal

import numpy as np

from popmargin.data.load import load_preferences
from popmargin.data.schema import Preferences
from popmargin.errors import RunError, counted
from popmargin.files import whole_file
from popmargin.label.export.pop_edges import pop_edges
from popmargin.label.export.preferences import preferences_of
from popmargin.label.projects.open_project import open_project
from popmargin.label.store.address import open_store
from popmargin.rounds.plan import Output, Plan, Stage, Work
from popmargin.rounds.stages.pair_responses import about_pairs
from popmargin.statistics.intervals import Clusters
from popmargin.statistics.jackknife import share_of_sums

Ask = Literal["preference", "pop"]


def add_people(
    plan: Plan, name: str, pairs: Output, *, store: str, project: str, ask: Ask, overlap: int, seed: int
) -> Stage:
    """Append the asking and the waiting; the outputs of the second are `preferences`, and `edges` for kind `pop`.

    Args:
        plan: of the recipe.
        name: of the stages, below which they are `ask` and `answers`.
        pairs: preferences to ask about.
        store: a label store: a file, or a database URL.
        project: its project; made when missing.
        ask: `preference`: which response is better; `pop`: which of two preferences is stronger.
        overlap: people for each question.
        seed: of the order, and of the pairs of preferences.
    """
    where = {"store": store, "project": project}
    asked = plan.add(
        f"{name}/ask",
        ask_stage,
        inputs={"pairs": pairs},
        settings=where | {"ask": ask, "overlap": overlap, "seed": seed},
        outputs={"asked": "asked.txt"},
    )
    outputs = {"preferences": "preferences.parquet"} | ({"edges": "edges.parquet"} if ask == "pop" else {})
    return plan.add(
        f"{name}/answers",
        answers_stage,
        inputs={"pairs": pairs, "asked": asked["asked"]},
        settings=where | {"ask": ask, "overlap": overlap},
        outputs=outputs,
    )


def ask_stage(work: Work) -> dict[str, Any]:
    """Put the questions into the store; those that are there already stay."""
    settings = work.settings
    data = _without_ratings(load_preferences(work.inputs["pairs"], ties="keep"))
    with open_store(settings["store"], create=True) as store:
        project = open_project(
            store,
            data,
            settings["project"],
            kind=settings["ask"],
            overlap=settings["overlap"],
            seed=settings["seed"],
            say=lambda line: work.say(f"  {line}"),
        )
        items = store.progress(project.id).items
    with whole_file(work.outputs["asked"]) as partial:
        partial.write_text(f"{items}\n", encoding="utf-8")
    return {"questions": items}


def answers_stage(work: Work) -> dict[str, Any]:
    """Take the answers out, once all are there.

    Raises:
        RunError: some are missing; it says how to give them, and the next call goes on.
    """
    settings = work.settings
    with open_store(settings["store"]) as store:
        project = store.project(settings["project"])
        items = store.progress(project.id).items
        counts = Counter(store.labels(project.id, columns=("item",))["item"].to_pylist())
        done = sum(count >= settings["overlap"] for count in counts.values())
        if done < items:
            raise RunError(
                f"{done} of {items} questions of project '{project.name}' are answered. Label them "
                f"with popmargin annotate --db {settings['store']} --project {project.name}, or popmargin label judge; "
                "then run the same command again."
            )
        if settings["ask"] == "pop":
            edges, report = pop_edges(store, project)
            if all(edges.table["tie"].to_pylist()):
                raise RunError(
                    f"No answer of project '{project.name}' says which preference is stronger ({report}), so there is "
                    "nothing to train on."
                )
            edges.save(work.outputs["edges"])
            _without_ratings(load_preferences(work.inputs["pairs"])).save(work.outputs["preferences"])
            return {"edges": len(edges), "report": str(report)}
        answered = preferences_of(store, project)
    kept, left_out = _decided(answered)
    if not kept:
        raise RunError(
            f"No answer of project '{settings['project']}' says which response is better: {left_out}. There is nothing "
            "to train on."
        )
    answered.select(kept).save(work.outputs["preferences"])
    preferences = load_preferences(work.outputs["preferences"])  # as it is trained on: the better response is chosen
    left_out = dict(answered.report.problem_counts) | left_out
    work.say(f"  {counted(len(preferences), 'pair')}" + (f"; left out: {left_out}" if left_out else ""))
    return about_pairs(preferences) | {"left_out": left_out} | _trusted(preferences)


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

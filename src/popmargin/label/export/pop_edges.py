"""PoP edges from the labels of a store."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute

from popmargin.errors import ConfigError, counted, first_few
from popmargin.label.export.counting_labels import counting_labels
from popmargin.label.export.judged_wrong import DECIDED, OnWrong, check_wrong, wrong_counts, wrong_preferences
from popmargin.label.export.people_first import Models, people_first
from popmargin.label.export.pooled_votes import NO_WEIGHTS, Chances, Pooling, pool_votes
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.ranked_items import ranked_ids
from popmargin.label.store.records import Adjudication, Project
from popmargin.pop.edges import SCHEMA, PopEdges
from popmargin.pop.labelled import weighted_annotators

pc: Any = pyarrow.compute
_EDGE_COLUMNS = ("item", "kind", "first", "second", "annotator", "annotator_kind", "verdict", "wrong", "confidence",
                 "others", "assignment")  # fmt: skip
_AGGREGATES = (None, "majority", "weighted")


@dataclass(frozen=True)
class EdgeAccount:
    """What happened to the current labels; always labels == used + left out.

    Attributes:
        labels: current labels of the project.
        used: labels that became edges.
        left_out: number of labels left out, by reason.
        wrong: preference id -> how many labels mark it wrong.
        by_most: the preferences that most annotators mark wrong (see `wrong_preferences`).
        notes: how votes were pooled.
        weights: of annotators whose labels do not count 1 each.
    """

    labels: int
    used: int
    left_out: Mapping[str, int]
    wrong: Mapping[str, int]
    by_most: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        out = sum(self.left_out.values())
        lines = [f"{counted(self.labels, 'label')} = {self.used} used + {out} left out"]
        lines += [f"  left out, {reason}: {count}" for reason, count in self.left_out.items() if count]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  each label of {name} counts {weight:g}" for name, weight in self.weights.items()]
        if self.wrong:
            worst = sorted(self.wrong.items(), key=lambda pair: (-pair[1], pair[0]))
            shown = first_few([f"{name} ({count})" for name, count in worst])
            lines.append(f"  marked wrong: {counted(len(self.wrong), 'preference')}: {shown}")
        if self.by_most:
            lines.append(
                f"  marked wrong by most annotators: {first_few(sorted(self.by_most))}; the data still has them "
                "unchanged. `popmargin label export --as preferences` swaps or drops them (--wrong)"
            )
        return "\n".join(lines)


def pop_edges(
    store: LabelStore,
    project: Project,
    *,
    aggregate: str | None = None,
    wrong: OnWrong = "swap",
    without: Collection[str] = (),
    adjudication: Adjudication = "wins",
    models: Models = "fill",
    pool: Pooling | None = None,
    weights: Mapping[str, float] | None = None,
) -> tuple[PopEdges, EdgeAccount]:
    """The current PoP labels as edges: one per item and annotator, with ties (tie=True); m − 1 for a ranking of m.

    Left out, and counted: labels of single preferences, repeated items, the answers unsure and wrong, labels of models
    where a person has decided, and comparisons with preferences that most mark wrong, since their difference has the
    opposite sign.

    Args:
        store: the store.
        project: whose labels.
        aggregate: "majority" makes one edge per item from the most frequent answer, with its share as confidence; an
            even split is a tie, and so are more ties than votes for either side. "weighted" weights each vote by its
            confidence, as the strength scale does (1 without one); "majority" counts all votes equally.
        wrong: "keep" keeps comparisons with preferences that most mark wrong; "swap" and "drop" leave them out.
        without: names of annotators whose labels are left out and counted, as are those of discarded ones.
        adjudication: of pairs that an adjudicator has decided, "wins" uses only that label, "ignore" only the others.
        models: "fill" leaves out labels of judges and rewards where a person has decided, "equal" counts them too.
        pool: "dawid-skene" makes one edge per item from all votes together, each labeller counting by how often it is
            right (see `pool_votes`), with the probability as confidence; a tie where that is likeliest.
        weights: how much each label of an annotator counts, by name, in place of the weight that the store has: the
            confidence of their edges is multiplied by it, or their vote.

    Returns:
        The edges (source: the kind of annotator) and the account.

    Raises:
        ConfigError: an unknown aggregation, or an unknown value of `wrong`.
        DataError: the project has no annotator of a name in `without` or `weights`.
    """
    check_wrong(wrong)
    if aggregate not in _AGGREGATES:
        raise ConfigError(
            f"aggregate is {aggregate!r}; choose 'majority' or 'weighted', or omit it for one edge per label."
        )
    if pool and aggregate:
        raise ConfigError("pool and aggregate exclude each other: both make one edge per item. Give one.")
    if pool and weights:
        raise ConfigError("pool excludes weights: it finds out itself how much each labeller's votes count.")
    columns = (*_EDGE_COLUMNS, "repeat_of")
    counting = counting_labels(
        store, project, columns, without=without, adjudication=adjudication, models=models, weights=weights,
        pool=pool is not None,
    )  # fmt: skip
    labels = counting.labels
    rank = pc.equal(labels["kind"], "rank")
    pop = pc.or_(pc.equal(labels["kind"], "pop"), rank)
    first_time = pc.is_null(labels["repeat_of"])
    decided = pc.or_(
        pc.is_in(labels["verdict"], value_set=pa.array(DECIDED)), pc.match_substring(labels["verdict"], ">")
    )
    mine = pc.and_(pop, first_time)
    by_most = wrong_preferences(people_first(labels, models), weights=counting.weights)
    names = pa.array([] if wrong == "keep" else list(by_most), pa.string())
    doubtful = pc.or_(pc.is_in(labels["first"], value_set=names), pc.is_in(labels["second"], value_set=names))
    said = pc.and_(mine, decided)
    used = labels.filter(pc.and_(said, pc.invert(doubtful)))
    ranked = used.filter(pc.equal(used["kind"], "rank"))
    if ranked.num_rows and (pool or aggregate):
        raise ConfigError(
            f"{project.name}: votes on rankings of several preferences are not pooled. Omit --aggregate and --pool: a "
            "strength scale (popmargin pop scale) weighs all rankings together."
        )

    def count(mask: Any) -> int:
        return int(pc.sum(pc.cast(mask, pa.int64())).as_py() or 0)

    left_out = {
        **counting.left_out(),
        "single preferences": count(pc.equal(labels["kind"], "preference")),
        "ratings": count(pc.equal(labels["kind"], "rating")),
        "repeated items": count(pc.and_(pop, pc.invert(first_time))),
        "unsure": count(pc.and_(mine, pc.equal(labels["verdict"], "unsure"))),
        "wrong": count(pc.and_(mine, pc.equal(labels["verdict"], "wrong"))),
        "about a preference that most annotators mark wrong": count(pc.and_(said, doubtful)),
    }
    account = EdgeAccount(
        counting.total, used.num_rows, left_out, wrong_counts(labels.filter(mine)), by_most, weights=counting.weights
    )
    parameters: dict[str, Any] = {
        "labelled": project.name,
        "aggregate": aggregate,
        "labels": labels.num_rows + counting.overruled,
    }
    if pool:
        pooled = pool_votes(labels.filter(pc.and_(mine, pc.invert(doubtful))).to_pylist(), models)
        parameters |= {"pool": pool, "models": models}
        notes = (*pooled.notes(), *([NO_WEIGHTS] if counting.pooled else []))
        return PopEdges(_pooled(used, pooled.chances, pool), parameters), replace(account, notes=notes)
    if aggregate is not None:
        return PopEdges(_majority(used, aggregate, counting.weights), parameters), account
    table = _edge_table(used.filter(pc.not_equal(used["kind"], "rank")))
    if ranked.num_rows:
        table = pa.concat_tables([table, _ranked_edges(ranked, project.name)], promote_options="default")
    edges, present = PopEdges(table, parameters), set(used["annotator"].unique().to_pylist())
    lighter = {name: weight for name, weight in counting.weights.items() if name in present}
    return weighted_annotators(edges, lighter, project.name) if lighter else edges, account


def _pooled(labels: Any, chances: Mapping[int, Chances], source: str) -> Any:
    """One edge per item, by its likeliest verdict."""
    sides = {
        row["item"]: (row["first"], row["second"]) for row in labels.select(["item", "first", "second"]).to_pylist()
    }
    best = {item: max(found, key=lambda verdict: found[verdict]) for item, found in chances.items()}
    pairs = [sides[item][::-1] if best[item] == "second" else sides[item] for item in chances]
    return pa.table(
        {
            "stronger": pa.array([pair[0] for pair in pairs], pa.string()),
            "weaker": pa.array([pair[1] for pair in pairs], pa.string()),
            "source": pa.array([source] * len(pairs), pa.string()),
            "tie": pa.array([best[item] == "tie" for item in chances], pa.bool_()),
            "confidence": pa.array([found[best[item]] for item, found in chances.items()], pa.float64()),
        }
    )


def _edge_table(labels: Any) -> Any:
    turned = pc.equal(labels["verdict"], "second")
    return pa.table(
        {
            "stronger": pc.if_else(turned, labels["second"], labels["first"]),
            "weaker": pc.if_else(turned, labels["first"], labels["second"]),
            "source": labels["annotator_kind"],
            "annotator": labels["annotator"],
            "tie": pc.equal(labels["verdict"], "tie"),
            "confidence": labels["confidence"],
        }
    )


def _ranked_edges(labels: Any, name: str) -> Any:
    """The edges between neighbours of each ranking, which name it."""
    rows: list[dict[str, Any]] = []
    for row in labels.to_pylist():
        shared = {"source": row["annotator_kind"], "tie": False} | {
            key: row[key] for key in ("annotator", "confidence")
        }
        shared["ranking"] = f"{name}/{row['annotator']}/{row['assignment']}"
        rows += [{"stronger": one, "weaker": other, **shared} for one, other in pairwise(ranked_ids(row))]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _majority(labels: Any, aggregate: str, weights: Mapping[str, float]) -> Any:
    """One edge per item; the vote of an annotator who has a weight counts as much."""
    weight = pa.array([weights.get(name, 1.0) for name in labels["annotator"].to_pylist()], pa.float64())
    if aggregate == "weighted":
        weight = pc.multiply(weight, pc.fill_null(labels["confidence"], 1.0))
    counted = {f"for_{name}": pc.if_else(pc.equal(labels["verdict"], name), weight, 0.0) for name in DECIDED}
    votes = pa.table({name: labels[name] for name in ("item", "first", "second")} | counted)
    sums = votes.group_by(["item", "first", "second"], use_threads=False).aggregate([(name, "sum") for name in counted])
    first, second, tie = (sums[f"for_{name}_sum"] for name in DECIDED)
    turned, most = pc.greater(second, first), pc.max_element_wise(first, second)
    total = pc.add(pc.add(first, second), tie)
    equal = pc.or_(pc.equal(first, second), pc.greater(tie, most))
    agreeing = pc.if_else(equal, pc.max_element_wise(tie, most), most)
    return pa.table(
        {
            "stronger": pc.if_else(turned, sums["second"], sums["first"]),
            "weaker": pc.if_else(turned, sums["first"], sums["second"]),
            "source": pa.array([aggregate] * sums.num_rows, pa.string()),
            "tie": equal,
            # Votes of weight 0 leave a tie of weight 0.
            "confidence": pc.divide(agreeing, pc.if_else(pc.greater(total, 0.0), total, 1.0)),
        }
    )

"""The labels that an export counts, and how many it leaves out for whose they are."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from popmargin.errors import counted
from popmargin.label.export.people_first import Models, people_first
from popmargin.label.export.pooled_votes import NO_WEIGHTS
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Adjudication, Project


@dataclass(frozen=True, kw_only=True)
class CountingLabels:
    """Labels that count, and numbers of those that do not.

    Attributes:
        labels: those that count, with the columns that were asked for.
        others: of annotators who do not count.
        settled: on items that an adjudicator has decided, or with "ignore" those of adjudicators.
        overruled: of models, where a person has decided.
        adjudication: whose labels `settled` are.
        weights: how much each label of some annotators counts, by name; 1 for others.
        pooled: whether weights that there are do not count, since pooling finds its own.
    """

    labels: Any
    others: int
    settled: int
    overruled: int
    adjudication: Adjudication
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    pooled: bool = False

    @property
    def total(self) -> int:
        """All labels of the project."""
        return self.labels.num_rows + self.others + self.settled + self.overruled

    def left_out(self) -> dict[str, int]:
        """Numbers by reason."""
        return {
            "of annotators who do not count": self.others,
            ("settled by an adjudicator" if self.adjudication == "wins" else "of adjudicators"): self.settled,
            "of models, where a person has decided": self.overruled,
        }

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        why = "on items that an adjudicator has decided" if self.adjudication == "wins" else "of adjudicators"
        said = (
            (self.others, "of annotators who do not count left out"),
            (self.settled, f"{why} left out"),
            (
                self.overruled,
                "of models left out, since a person has decided the item (--models equal counts them)",
            ),
        )
        notes = [f"{counted(count, 'label')} {text}" for count, text in said if count]
        if self.pooled:
            notes.append(NO_WEIGHTS)
        return notes + [f"each label of {name} counts {weight:g}" for name, weight in self.weights.items()]


def counting_labels(
    store: LabelStore,
    project: Project,
    columns: Sequence[str],
    *,
    without: Collection[str],
    adjudication: Adjudication,
    models: Models,
    weights: Mapping[str, float] | None = None,
    pool: bool = False,
) -> CountingLabels:
    """The labels of a project that count.

    Args:
        store: the store.
        project: whose labels.
        columns: of the labels; they include item, annotator_kind and verdict.
        without: names of annotators whose labels are left out, as are those of discarded ones.
        adjudication: of items that an adjudicator has decided, "wins" uses only that label, "ignore" only the others.
        models: "fill" leaves out labels of judges and rewards where a person has decided, "equal" counts them too.
        weights: how much each label of an annotator counts, by name, in place of the weight that the store has.
        pool: keep the labels of models, from which pooling learns how reliable they are, and leave the weights out.

    Raises:
        DataError: no annotator of a name in `without` or `weights`.
        ConfigError: an unknown value of `models`.
    """
    labels = store.labels(project.id, columns=columns, without=without, adjudication=adjudication)
    of_all = store.labels(project.id, columns=("annotator",), discarded=True).num_rows
    of_those = store.labels(project.id, columns=("annotator",), without=without).num_rows
    first = people_first(labels, "equal" if pool else models)
    store.refuse_unknown(project.id, weights or ())
    known = {who.name: who.weight for who in store.annotators(project.id)} | dict(weights or {})
    present = set(labels["annotator"].unique().to_pylist()) if "annotator" in labels.column_names else set(known)
    weighted = {name: weight for name, weight in known.items() if weight != 1 and name in present}
    return CountingLabels(
        labels=first,
        others=of_all - of_those,
        settled=of_those - labels.num_rows,
        overruled=labels.num_rows - first.num_rows,
        adjudication=adjudication,
        weights={} if pool else weighted,
        pooled=pool and bool(weighted),
    )

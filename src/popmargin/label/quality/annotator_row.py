"""What the rows of all annotators have in common, whatever they were asked."""

from dataclasses import dataclass

from popmargin.statistics.intervals import UNDEFINED, Interval


@dataclass(frozen=True, kw_only=True)
class AnnotatorRow:
    """One annotator's labels; `consistency`, `gold`, `others` and `kappa` are measured as suits the kind.

    Attributes:
        kind: of the annotator.
        labels: current labels, excluding repeats.
        seconds: median time per label; nan if none was recorded.
        unsure: share of the labels that decide nothing.
        consistency: of repeated items with the first answers.
        gold: of gold items with the known answers; what was told in training does not count.
        others: with the other people.
        kappa: Cohen's κ with the other people.
    """

    name: str
    kind: str
    labels: int
    seconds: float
    unsure: float
    consistency: Interval
    gold: Interval
    others: Interval
    kappa: Interval = UNDEFINED

"""The numbers of recommenders in words; first of all, whether a denoiser beats item-kNN."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from popmargin.recommend.ranking_metrics import RankingMetrics
from popmargin.report.discoveries import differences, discovery_note, seeds_tell
from popmargin.report.metrics import number
from popmargin.report.results import ArmResult
from popmargin.statistics.intervals import Interval

LEVEL = 0.95
_PLACES = 4
Compare = Callable[..., dict[str, Interval]]


@dataclass(frozen=True)
class Contender:
    """An arm and how it ranks.

    Attributes:
        result: its numbers.
        kind: the registered baseline, or `model`.
        metrics: of every user.
        resumed: whether its training was interrupted, so that its time is that of the last part alone.
    """

    result: ArmResult
    kind: str
    metrics: RankingMetrics
    resumed: bool = False

    @property
    def label(self) -> str:
        """What the report calls it."""
        return self.result.label or self.result.name


def main_metrics(cutoffs: Sequence[int]) -> tuple[str, str]:
    """The metric that decides, NDCG at 10 (or the largest cutoff), and the one that is told beside it.

    Example:
        >>> main_metrics([5, 10, 20]), main_metrics([1, 3])
        (('ndcg@10', 'recall@10'), ('ndcg@3', 'recall@3'))
    """
    cutoff = 10 if 10 in cutoffs else max(cutoffs)
    return f"ndcg@{cutoff}", f"recall@{cutoff}"


def read_recommenders(
    contenders: Sequence[Contender], cutoffs: Sequence[int], part: str, *, compare: Compare
) -> list[str]:
    """Sentences on the arms: item-kNN against the denoisers, the best arm, seeds, multiple comparisons, and costs.

    Args:
        contenders: all arms.
        cutoffs: places that count.
        part: `test` or `valid`.
        compare: differences of two arms' metrics, by metric; takes `level`.
    """
    arms = [one.result for one in contenders]
    sentences = [against_item_knn(contenders, cutoffs, compare=compare), _best(contenders, cutoffs)]
    if part == "valid":
        sentences.append("These are validation users: settings may have been chosen on them.")
    seeds = sorted({len(arm.seeds) for arm in arms if arm.seeds})
    if seeds == [1]:
        sentences.append(
            "One training seed: the intervals cover other users, not other trainings, whose results may differ by more."
        )
    elif seeds:
        counts = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
        sentences.append(f"{counts} training seeds: the intervals cover other users and other trainings.")
    resumed = [one.label for one in contenders if one.resumed]
    if resumed:
        sentences.append(
            f"The training of {', '.join(resumed)} was interrupted: its time and memory are those of the last part."
        )
    base = next((arm.name for arm in arms if not arm.differences), "")
    note = discovery_note(differences(arms, base))
    return [*sentences, note] if note else sentences


def against_item_knn(contenders: Sequence[Contender], cutoffs: Sequence[int], *, compare: Compare) -> str:
    """Whether any denoiser beats the best item-kNN, with numbers; differences are corrected for several denoisers.

    Args:
        contenders: all arms.
        cutoffs: places that count.
        compare: as in `read_recommenders`.
    """
    metric, beside = main_metrics(cutoffs)
    neighbours = [one for one in contenders if one.kind == "item_knn"]
    models = [one for one in contenders if one.kind == "model"]
    if not neighbours or not models:
        lacks = "denoiser" if not models else "item_knn arm"
        return f"Nothing is said of PreferDiff against item-kNN: there is no {lacks} here."
    knn = max(neighbours, key=lambda one: one.result.metrics[metric].estimate)
    level = 1 - (1 - LEVEL) / len(models)
    gaps = [compare(one.metrics, knn.metrics, level=level)[metric] for one in models]
    ranked = sorted(zip(models, gaps, strict=True), key=lambda pair: -pair[1].estimate)
    winners = [pair for pair in ranked if pair[1].low > 0 and seeds_tell(pair[0].result, knn.result)]
    best, gap = winners[0] if winners else ranked[0]
    numbers = _numbers(best, knn, metric, beside, gap, len(models))
    if winners:
        others = f" ({len(winners)} of {len(models)} denoisers do)" if len(models) > 1 else ""
        return f"{best.label} beats item-kNN{others}: {numbers}."
    if all(pair[1].high < 0 for pair in ranked):
        who = "The denoiser does not beat" if len(models) == 1 else f"None of the {len(models)} denoisers beats"
        return f"{who} item-kNN: {numbers}."
    why = "" if gap.low <= 0 <= gap.high else "; one training seed cannot tell it from chance"
    who = "the denoiser" if len(models) == 1 else f"any of the {len(models)} denoisers"
    return f"It remains open whether {who} beats item-kNN: {numbers}{why}."


def _numbers(best: Contender, knn: Contender, metric: str, beside: str, gap: Interval, models: int) -> str:
    corrected = f", corrected for {models} denoisers" if models > 1 else ""
    own, other = (one.result.metrics for one in (best, knn))
    low, estimate, high = (number(value, _PLACES, sign=True) for value in (gap.low, gap.estimate, gap.high))
    which = "its" if models == 1 else f"the best, {best.label}, has"
    lead = f"{which} {_title(metric)}" + (" is" if models == 1 else "")
    first, second = ([number(values[name].estimate, _PLACES) for values in (own, other)] for name in (metric, beside))
    return (
        f"{lead} {first[0]} against {first[1]} of {knn.label} ({estimate}, 95% {low} to {high}{corrected}), "
        f"{_title(beside)} {second[0]} against {second[1]}"
    )


def _best(contenders: Sequence[Contender], cutoffs: Sequence[int]) -> str:
    metric, _ = main_metrics(cutoffs)
    ranked = sorted(contenders, key=lambda one: -one.result.metrics[metric].estimate)
    told = "; ".join(f"{one.label} {number(one.result.metrics[metric].estimate, _PLACES)}" for one in ranked)
    return f"By {_title(metric)}: {told}."


def _title(metric: str) -> str:
    name, _, cutoff = metric.partition("@")
    return f"{'NDCG' if name == 'ndcg' else name}@{cutoff}"

"""What to know about a ranking: ties, position bias, cycles, and how often the longer response is chosen."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from popmargin.account import Step
from popmargin.data.conversation import Text
from popmargin.data.tools import said
from popmargin.label.quality.label_quality import Cycles, cycles_of
from popmargin.label.ranking.ranking import KEPT, PromptRanking, Ranking
from popmargin.label.ranking.schemes import turned
from popmargin.rewards.rate_responses import holds_images
from popmargin.statistics.intervals import UNDEFINED, Interval, binomial_interval
from popmargin.statistics.jackknife import row_means, share_of_sums


@dataclass(frozen=True)
class RankingReport:
    """Facts about a ranking; intervals are 95%, over prompts.

    Attributes:
        step: what became of the prompts.
        comparisons: pairs that were compared, each once.
        calls: ordered questions, each once.
        repeated: unreadable answers that were asked for once more.
        no_outcome: comparisons without a readable answer.
        ties: share of the others that are a tie.
        contradictions: share of the others in which both orders named the same place.
        first_place: share of the answers naming a response that name the one shown first; away from 50% it is position
            bias, which both orders turn into ties.
        cycles: comparisons that contradict one another; None where nothing was decided.
        pairs: prompts that are kept.
        longer: share of them in which the longer response is chosen; not defined for images.
        length_gap: mean of log(length of chosen / length of rejected), in characters; likewise.
    """

    step: Step
    comparisons: int
    calls: int
    repeated: int
    no_outcome: int
    ties: Interval
    contradictions: Interval
    first_place: Interval
    cycles: Cycles | None
    pairs: int
    longer: Interval
    length_gap: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where a number is not defined."""
        cycles = None
        if self.cycles is not None:
            cycles = {
                "triads": self.cycles.triads,
                "cyclic": self.cycles.cyclic.to_dict(),
                "on_cycles": None if math.isnan(self.cycles.on_cycles) else self.cycles.on_cycles,
            }
        counts = ("comparisons", "calls", "repeated", "no_outcome", "pairs")
        shares = ("ties", "contradictions", "first_place", "longer", "length_gap")
        return (
            {"prompts": self.step.to_dict()}
            | {name: getattr(self, name) for name in counts}
            | {name: getattr(self, name).to_dict() for name in shares}
            | {"cycles": cycles}
        )

    def lines(self) -> list[str]:
        """The report in sentences."""
        lines = [
            *self.step.lines(),
            f"{self.comparisons} comparisons, {self.calls} questions; ties: {_share(self.ties)}",
        ]
        if not math.isnan(self.contradictions.estimate):
            lines.append(f"the two orders contradict each other in {_share(self.contradictions)} of the comparisons")
        if self.repeated:
            lines.append(
                f"unreadable answers asked for once more: {self.repeated}; comparisons left without an outcome: "
                f"{self.no_outcome}"
            )
        lines.append(f"the response shown first is named in {_share(self.first_place)} of the answers that name one")
        if self.cycles is not None and self.cycles.triads:
            lines.append(
                f"cycles: {_share(self.cycles.cyclic)} of {self.cycles.triads} triples (a coin: 25%); "
                f"{self.cycles.on_cycles:.1%} of the decided comparisons lie on a cycle"
            )
        if self.pairs and not math.isnan(self.length_gap.estimate):
            lines.append(
                f"the longer response is chosen in {_share(self.longer)} of {self.pairs} pairs; chosen is "
                f"{_ratio(self.length_gap)} times as long as rejected"
            )
        return lines


def ranking_report(ranking: Ranking) -> RankingReport:
    """The report of a ranking.

    Example:
        >>> from popmargin.data.responses import Responses
        >>> from popmargin.label.ranking.rank import rank_responses
        >>> always_first = lambda prompts, first, second: ["first" for _ in first]
        >>> report = ranking_report(rank_responses(Responses(["Hi"], [["a", "b", "c"]]), always_first))
        >>> report.ties.estimate, report.first_place.estimate, report.pairs
        (1.0, 1.0, 0)
    """
    prompts = ranking.prompts
    ties = [[of.count("tie"), len(of.games) - of.count("unknown")] for of in prompts]
    lengths = np.array([_lengths(ranking, of) for of in prompts if of.fate == KEPT]).reshape(-1, 2)
    texts = len(lengths) > 0 and not holds_images(ranking.responses)
    gaps = np.log(lengths[:, 0] / lengths[:, 1]) if texts else np.zeros(0)
    both = ranking.orders == "both"
    return RankingReport(
        step=ranking.step(),
        comparisons=sum(len(of.games) for of in prompts),
        calls=ranking.calls,
        repeated=ranking.repeated,
        no_outcome=sum(of.count("unknown") for of in prompts),
        ties=_of_sums(ties),
        contradictions=_of_sums([_contradictions(of) for of in prompts]) if both else UNDEFINED,
        first_place=_of_sums([_first_places(of) for of in prompts]),
        cycles=cycles_of([row for of in prompts for row in _games(of)]),
        pairs=len(lengths),
        longer=binomial_interval(int((gaps > 0).sum()), len(gaps)),
        length_gap=row_means(gaps[None], list(range(len(gaps)))).interval() if texts else UNDEFINED,
    )


def _of_sums(sums: list[list[int]]) -> Interval:
    found = np.array(sums, dtype=np.float64).reshape(-1, 2)
    return share_of_sums(found) if (found[:, 1] > 0).any() else UNDEFINED


def _contradictions(of: PromptRanking) -> list[int]:
    decided = [pair for pair, outcome in of.games.items() if outcome != "unknown"]
    same = sum(of.answers[pair] == of.answers[turned(pair)] != "tie" for pair in decided)
    return [same, len(decided)]


def _first_places(of: PromptRanking) -> list[int]:
    named = [answer for answer in of.answers.values() if answer in ("first", "second")]
    return [named.count("first"), len(named)]


def _games(of: PromptRanking) -> list[dict[str, Any]]:
    return [
        {"first": f"{of.contest.row}:{pair[0]}", "second": f"{of.contest.row}:{pair[1]}", "verdict": outcome}
        for pair, outcome in of.games.items()
    ]


def _lengths(ranking: Ranking, of: PromptRanking) -> list[int]:
    ends = (of.standing.best, of.standing.worst)
    return [_length(ranking.text(of.contest.row, number)) for number in ends if number is not None]


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len("\n".join(said(turn) for turn in text))


def _share(share: Interval) -> str:
    if math.isnan(share.estimate):
        return "–"
    ends = "" if math.isnan(share.low) else f" ({share.low:.1%} to {share.high:.1%})"
    return f"{share.estimate:.1%}{ends}"


def _ratio(gap: Interval) -> str:
    ends = "" if math.isnan(gap.low) else f" ({math.exp(gap.low):.2f} to {math.exp(gap.high):.2f})"
    return f"{math.exp(gap.estimate):.2f}{ends}"

"""What is to be ranked: the different responses to each prompt, their order of play, and what that may cost."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from popmargin.account import Step
from popmargin.data.conversation import Text, prompt_key
from popmargin.data.responses import Responses
from popmargin.data.tools import said
from popmargin.errors import ConfigError, counted
from popmargin.label.ranking.schemes import Scheme, all_pairs, comparisons_of

Orders = Literal["both", "one"]
ORDERS: tuple[str, ...] = get_args(Orders)
TOO_FEW = "fewer than two different responses"
BEYOND = "beyond the limit of calls"


@dataclass(frozen=True)
class Contest:
    """The responses of one prompt that play.

    Attributes:
        row: number of the prompt.
        order: numbers of its different responses in the order of play.
        merged: responses that say the same as an earlier one.
        blank: responses without a text.
    """

    row: int
    order: tuple[int, ...]
    merged: int = 0
    blank: int = 0


@dataclass(frozen=True)
class Plan:
    """What a ranking will ask, before anything is asked.

    Attributes:
        contests: the prompts that are ranked.
        left_out: number of the prompt -> why it is not.
        comparisons: of the scheme, over all prompts.
        calls: ordered questions of these comparisons, if none repeats another.
        most_calls: the same with the direct questions of best against worst that may be added.
        most_of: the same for each of `contests`.
    """

    prompts: int
    contests: tuple[Contest, ...]
    left_out: Mapping[int, str] = field(default_factory=dict[int, str])
    comparisons: int = 0
    calls: int = 0
    most_calls: int = 0
    most_of: tuple[int, ...] = ()

    @property
    def responses(self) -> int:
        """Responses that play."""
        return sum(len(contest.order) for contest in self.contests)

    def costliest(self, responses: Responses) -> list[tuple[Text, Text, Text]]:
        """As many ordered questions as may be asked, of each prompt the longest: prompt, response shown first, other.

        Args:
            responses: that are ranked.
        """
        found: list[tuple[Text, Text, Text]] = []
        starts, texts = [0, *responses.counts.cumsum().tolist()], responses.texts
        for contest, most in zip(self.contests, self.most_of, strict=True):
            own = [texts[starts[contest.row] + number] for number in contest.order]
            pairs = [(one, other) for one in own for other in own if one is not other]
            pairs.sort(key=lambda pair: sum(len(json.dumps(text, ensure_ascii=False).encode()) for text in pair))
            found += [(responses.prompts[contest.row], *pair) for pair in pairs[-most:]]
        return found

    def cost(self, price: float | None = None, *, scored: bool = False) -> str:
        """What the ranking will cost at most, as a sentence.

        Args:
            price: of a call.
            scored: the judge is a reward, which is called once for each response.

        Example:
            >>> plan_ranking(Responses(["Hi"], [["a", "b", "c", "d"]])).cost(0.01)
            '4 responses, 5 comparisons, 10 calls; with best against worst at most 12, which cost 0.12'
        """
        most = self.responses if scored else self.most_calls
        text = f"{counted(self.responses, 'response')}, {counted(self.comparisons, 'comparison')}, "
        calls = counted(most if scored else self.calls, "call")
        text += calls if scored else f"{calls}; with best against worst at most {most}"
        return text if price is None else f"{text}, which cost {price * most:.6g}"

    def step(self) -> Step:
        """The prompts that are ranked, and those that are left out."""
        reasons: dict[str, int] = {}
        for why in self.left_out.values():
            reasons[why] = reasons.get(why, 0) + 1
        return Step(
            name="prompts to rank", rows_in=self.prompts, kept={"ranked": len(self.contests)}, left_out=reasons,
            notes=self._notes(), unit="prompts",
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        merged = sum(contest.merged for contest in self.contests)
        blank = sum(contest.blank for contest in self.contests)
        notes = (f"identical responses to a prompt, merged: {merged}", f"empty responses, which do not play: {blank}")
        return tuple(note for note, count in zip(notes, (merged, blank), strict=True) if count)


def plan_ranking(
    responses: Responses,
    *,
    scheme: Scheme = "champion",
    seed: int = 0,
    orders: Orders = "both",
    limit: int | None = None,
) -> Plan:
    """What `rank_responses` will ask; nothing is asked.

    Identical responses to a prompt are merged and empty ones left out. The order of play is drawn from the seed and the
    prompt, so it does not depend on the other prompts.

    Args:
        responses: to each prompt; prompts with fewer than two different ones are left out.
        scheme: see `popmargin.label.ranking.schemes`.
        seed: of the order of play.
        orders: "both" asks every comparison in both orders.
        limit: most calls; the first prompts that are sure to stay within it are ranked, the others left out.

    Raises:
        ConfigError: an unknown scheme, unknown orders, or a limit below 0.

    Example:
        >>> plan = plan_ranking(Responses(["Hi"], [["a", "b", "c", "a"]]))
        >>> plan.contests[0].merged, plan.comparisons, plan.calls, plan.most_calls
        (1, 3, 6, 6)
    """
    if orders not in ORDERS:
        raise ConfigError(f"orders is {orders!r}; choose 'both' or 'one'.")
    if limit is not None and limit < 0:
        raise ConfigError(f"The limit is {limit} calls; give 0 or more.")
    times, texts = (2 if orders == "both" else 1), responses.texts
    contests: list[Contest] = []
    left_out: dict[int, str] = {}
    most_of: list[int] = []
    comparisons = most = start = 0
    full = False
    for row, (prompt, count) in enumerate(zip(responses.prompts, responses.counts.tolist(), strict=True)):
        contest = _contest(row, prompt, texts[start : start + count], seed)
        start += count
        size = len(contest.order)
        if size < 2:
            left_out[row] = TOO_FEW
            continue
        played = comparisons_of(scheme, size)
        here = times * min(played + 1, all_pairs(size))
        full = full or (limit is not None and most + here > limit)
        if full:
            left_out[row] = BEYOND
            continue
        contests.append(contest)
        most_of.append(here)
        comparisons, most = comparisons + played, most + here
    return Plan(len(responses), tuple(contests), left_out, comparisons, times * comparisons, most, tuple(most_of))


def _contest(row: int, prompt: Text, texts: Sequence[Text], seed: int) -> Contest:
    filled = [number for number, text in enumerate(texts) if not is_blank(text)]
    first: dict[str, int] = {}
    for number in filled:
        first.setdefault(prompt_key(texts[number]), number)
    order = list(first.values())
    random.Random(f"{seed}\x1f{prompt_key(prompt)}").shuffle(order)
    return Contest(row, tuple(order), len(filled) - len(order), len(texts) - len(filled))


def is_blank(text: Text) -> bool:
    """Whether a response says nothing, neither in words nor with a call."""
    return not (text.strip() if isinstance(text, str) else "".join(said(turn) for turn in text).strip())

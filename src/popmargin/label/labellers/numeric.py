"""Labellers that compare numbers: the data's own ratings, and a reward model."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from popmargin.data.questions import SIDES, PreferenceText
from popmargin.data.schema import Preferences
from popmargin.errors import DataError
from popmargin.judges.labeller import Account, Opinion, Question, count_verdicts
from popmargin.rewards.base import Reward
from popmargin.rewards.image_rewards import ImageReward
from popmargin.rewards.load import load_image_reward, load_reward
from popmargin.rewards.rate import response_ratings

Files = Callable[[Sequence[str]], Mapping[str, bytes]]
"""Names of images -> their files."""
_MISSING = Opinion("unsure", note="no rating")


class RatingLabeller:
    """Labels by the strength of the data's own ratings; a preference without one is "unsure", and counted.

    Args:
        strengths: strength by id of the preference; nan or missing if unknown.
        name: as an annotator.

    Raises:
        DataError: no preference has a strength.
    """

    kind: Literal["ratings"] = "ratings"

    def __init__(self, strengths: Mapping[str, float], name: str = "ratings") -> None:
        if not any(math.isfinite(strength) for strength in strengths.values()):
            raise DataError(
                "No preference has ratings or a strength, so there is nothing to label from. Import preferences with "
                "chosen_rating and rejected_rating, or label with a judge or a reward."
            )
        self.name = name
        self._strengths = strengths

    def label(self, questions: Sequence[Question], account: Account, *, progress: bool = False) -> list[Opinion]:
        """The preference with the larger strength is the stronger one; equal strengths are a tie."""
        opinions = [self._opinion(question) for question in questions]
        count_verdicts(opinions, account)
        return opinions

    def _opinion(self, question: Question) -> Opinion:
        first = self._strengths.get(question.first.id, math.nan)
        second = 0.0 if question.second is None else self._strengths.get(question.second.id, math.nan)
        return _MISSING if math.isnan(first - second) else by_difference(first - second)


class RewardLabeller:
    """Labels by a reward: the preference with the larger reward gap, negative if the rejected response is ahead.

    Args:
        reward: a function of (prompts, completions), or a specification as in `load_reward`; if `images` is given, a
            function of (prompts, images), or one as in `load_image_reward`.
        name: as an annotator.
        images: gives the files of images by their names; None if the responses are texts.
        options: of a reward model.

    Attributes:
        reward: what scores.
        of_images: whether it scores images.
    """

    kind: Literal["reward"] = "reward"

    def __init__(
        self,
        reward: str | Callable[..., Any] | Reward,
        name: str | None = None,
        *,
        images: Files | None = None,
        **options: Any,
    ) -> None:
        self.name = name or (f"reward:{reward}" if isinstance(reward, str) else "reward")
        load: Any = load_reward if images is None else load_image_reward
        self.reward: Reward | ImageReward = load(reward, **options)
        self.of_images = images is not None
        self._images = images
        self._gaps: dict[str, float] = {}

    def label(self, questions: Sequence[Question], account: Account, *, progress: bool = False) -> list[Opinion]:
        """As for ratings, with the reward's gaps; each preference is scored once."""
        sides = {side.id: side for question in questions for side in (question.first, question.second) if side}
        new = [side for name, side in sides.items() if name not in self._gaps]
        for text in (True, False):  # rewards take one kind of prompt at a time
            rows = [side for side in new if isinstance(side.prompt, str) == text]
            if rows:
                ratings = response_ratings(_preferences(rows, self._images), self.reward)
                account.notes += ratings.notes
                self._gaps.update(zip((side.id for side in rows), ratings.gap.tolist(), strict=True))
        account.asked += 2 * len(new)
        account.cached += 2 * (len(sides) - len(new))
        opinions = [
            by_difference(self._gaps[q.first.id] - (0.0 if q.second is None else self._gaps[q.second.id]))
            for q in questions
        ]
        count_verdicts(opinions, account)
        return opinions


def by_difference(difference: float) -> Opinion:
    """First if the difference of strengths is positive, second if negative, otherwise a tie."""
    return Opinion("tie" if difference == 0 else "first" if difference > 0 else "second")


def _preferences(sides: Sequence[PreferenceText], images: Files | None) -> Preferences:
    from popmargin.data.load import load_preferences

    columns = ("id", "prompt", "chosen", "rejected")
    rows: list[dict[str, Any]] = [{name: getattr(side, name) for name in columns} for side in sides]
    if images is not None:
        files = images(sorted({row[side] for row in rows for side in SIDES}))
        rows = [row | {side: files[row[side]] for side in SIDES} for row in rows]
    return load_preferences(rows)

"""Ratings of preferences by a reward: a reward model, a judge or a function as the annotator.

Axis suffixes: N preferences.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from popmargin.data.conversation import Text
from popmargin.data.images import COLUMNS, decode, image_bytes, pillow
from popmargin.data.schema import Preferences, holds_images
from popmargin.data.tools import said
from popmargin.errors import ConfigError, DataError, counted
from popmargin.rewards.base import PaidReward, Prompt, Reward, notes_of, say_cost
from popmargin.rewards.image_rewards import ImageReward
from popmargin.rewards.load import loader

Disagree = Literal["error", "equal", "swap", "drop"]
_BATCH = 256  # preferences passed to the reward at once
_IMAGES = 64  # between images, which are large


@dataclass(frozen=True)
class Ratings:
    """A reward's values for the responses of preferences.

    Attributes:
        chosen: rewards of the chosen responses (N,), in the reward's own unit.
        rejected: the same of the rejected ones (N,).
        notes: what the reward did with texts that it could not score in full, in sentences.
    """

    chosen: Float64[np.ndarray, " N"]
    rejected: Float64[np.ndarray, " N"]
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> Float64[np.ndarray, " N"]:
        """chosen − rejected (N,); negative if the reward disagrees with the label."""
        return self.chosen - self.rejected


def response_ratings(preferences: Preferences, reward: Reward | ImageReward) -> Ratings:
    """Rate both responses of every preference.

    Args:
        preferences: text or conversations; a conversation must end with the assistant's turn. Or images.
        reward: see `load_reward`; for images `load_image_reward`.

    Raises:
        ConfigError: a reward of texts for images, or the reverse.
        DataError: an image cannot be read, or a completion does not end with the assistant's turn.
        RunError: the reward gives something other than finite numbers.
    """
    if holds_images(preferences) and isinstance(reward, ImageReward):
        return _image_ratings(preferences, reward)
    if holds_images(preferences) or not isinstance(reward, Reward):
        made, scored = ("images", "texts") if holds_images(preferences) else ("texts", "images")
        raise ConfigError(f"The reward scores {scored}, and the responses are {made}. Name a reward of {made}.")
    rated: dict[str, list[float]] = {"chosen": [], "rejected": []}
    batches = _asked(preferences)
    if isinstance(reward, PaidReward):
        parts = list(batches)
        say_cost(
            reward,
            [prompt for _, prompts, _ in parts for prompt in prompts],
            [text for _, _, texts in parts for text in texts],
        )
        batches = iter(parts)
    for side, prompts, texts in batches:
        rated[side] += reward.score(prompts, texts)
    chosen, rejected = (np.array(rated[side], dtype=np.float64) for side in ("chosen", "rejected"))
    return Ratings(chosen, rejected, notes_of(reward))


def _asked(preferences: Preferences) -> Iterator[tuple[str, list[Prompt], list[str]]]:
    """Side, prompts and last turns of some preferences at a time."""
    ids, start = preferences.ids, 0
    for batch in preferences.batches("prompt", "chosen", "rejected", size=_BATCH):
        for side in ("chosen", "rejected"):
            rows = enumerate(zip(batch["prompt"], batch[side], strict=True), start)
            asked = [last_turn(prompt, text, f"the preference '{ids[row]}'") for row, (prompt, text) in rows]
            yield side, [prompt for prompt, _ in asked], [text for _, text in asked]
        start += len(batch["prompt"])


def _image_ratings(preferences: Preferences, reward: ImageReward) -> Ratings:
    rated: dict[str, list[float]] = {"chosen": [], "rejected": []}
    ids = preferences.ids
    for batch in preferences.batches("prompt", *rated, *COLUMNS, size=_IMAGES):
        for side, values in rated.items():
            start = len(values)
            images: list[Any] = []
            for row, (name, image) in enumerate(zip(batch[side], batch[f"{side}_image"], strict=True), start):
                where = f"the {side} image of the preference '{ids[row]}'"
                images.append(pillow().fromarray(decode(image_bytes(image, name=name, where=where), where=where)))
            values += reward.score_images(list(batch["prompt"]), images)
    chosen, rejected = (np.array(rated[side], dtype=np.float64) for side in ("chosen", "rejected"))
    return Ratings(chosen, rejected, notes_of(reward))


def last_turn(prompt: Text, completion: Text, whose: str) -> tuple[Prompt, str]:
    """Prompt and completion as a reward takes them: everything before the last turn, and that turn's text.

    Args:
        prompt, completion: texts, or messages.
        whose: completion it is, for the error.

    Raises:
        DataError: the completion does not end with the assistant's turn.
    """
    if isinstance(prompt, str) or isinstance(completion, str):
        return prompt, completion  # pyright: ignore[reportReturnType]
    if completion[-1]["role"] != "assistant":
        raise DataError(
            f"A completion of {whose} ends with a '{completion[-1]['role']}' turn, which rewards do "
            "not score. Remedy: end it with the assistant's turn."
        )
    if len(completion) > 1:
        from popmargin.data.encode import join_turns  # loads transformers

        before: Any = join_turns(prompt, completion[:-1])
    else:
        before = prompt
    return before, said(completion[-1])


def rate_preferences(
    preferences: Preferences, reward: str | Callable[..., Any] | Reward | ImageReward, *, disagree: Disagree = "error"
) -> Preferences:
    """The preferences with chosen_rating and rejected_rating from a reward.

    The data's own ratings, strength and margin are replaced. Ratings must not contradict the label, so the caller says
    what to do if the reward prefers the rejected response; relabelling also drops a soft label for the other response.

    Args:
        preferences: as loaded.
        reward: a function of (prompts, completions), or a specification as in `load_reward`; of images a function of
            (prompts, images), or one as in `load_image_reward`.
        disagree: `error`; `equal`: both ratings are their mean, a gap of 0 (the label stays); `swap`: chosen and
            rejected are swapped (the reward relabels); `drop`: the preference is dropped.

    Raises:
        DataError: the reward disagrees with a label under `error`, or with all under `drop`.
        RunError: the reward gives something other than finite numbers.

    Example:
        >>> from popmargin import load_preferences
        >>> data = load_preferences([{"prompt": "2+2?", "chosen": "four", "rejected": "5"}])
        >>> rate_preferences(data, lambda prompts, completions: [len(text) for text in completions]).strength.tolist()
        [3.0]
    """
    load = loader(images=holds_images(preferences))
    return with_ratings(preferences, response_ratings(preferences, load(reward)), disagree=disagree)


def with_ratings(preferences: Preferences, ratings: Ratings, *, disagree: Disagree = "error") -> Preferences:
    """The same for existing ratings."""
    against = ratings.gap < 0
    if against.any() and disagree == "error":
        first = preferences.ids[int(np.flatnonzero(against)[0])]
        raise DataError(
            f"The reward prefers the rejected response in {int(against.sum())} of "
            f"{counted(len(preferences), 'preference')} (first: '{first}'). Choose what to do with them: `equal` rates "
            "both the same, `swap` relabels, `drop` leaves them out."
        )
    if against.all() and disagree == "drop":
        raise DataError("The reward disagrees with every label, so no preference is left. Is it the right model?")
    chosen, rejected = ratings.chosen.copy(), ratings.rejected.copy()
    if disagree == "equal":
        chosen[against] = rejected[against] = ((chosen + rejected) / 2)[against]

    report = replace(preferences.report, notes=(*preferences.report.notes, *ratings.notes))
    rated = Preferences(preferences.dataset, report)
    rated = rated.with_columns(chosen_rating=chosen, rejected_rating=rejected, strength=None, margin=None)
    if disagree == "swap":
        says_so = preferences.soft_label <= 0.5  # any other label is dropped: loading refuses the two together
        rated = rated.swap(against)
        rated = rated.with_columns(soft_label=np.where(against & ~says_so, np.nan, rated.soft_label))
    return rated.select(np.flatnonzero(~against)) if disagree == "drop" else rated

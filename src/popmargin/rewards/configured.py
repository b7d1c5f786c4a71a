"""The rewards that a configuration names: the first, and further ones that are reported beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import EvaluationConfig
from popmargin.data.images import decode, pillow
from popmargin.errors import ConfigError
from popmargin.rewards.base import Prompt, Reward, notes_of, say_cost
from popmargin.rewards.image_rewards import ImageReward
from popmargin.rewards.load import check_reward, loader
from popmargin.rewards.naming import read_name

AnyReward = Reward | ImageReward
TAKEN = (
    "reward",
    "kl",
    "image",
    "tokens",
    "finished",
    "source",
    "round",
    "text",
    "prompt",
    "responses",
    "cluster",
    "goal",
)
"""Names that generations have of their own."""
_DECODED = 64  # images in memory at once


@dataclass(frozen=True)
class Rewards:
    """What scores generations; all of them score texts, or all score images.

    Attributes:
        first: the reward that win rates and `mean_reward` are about.
        also: further ones, by name.
    """

    first: AnyReward
    also: Mapping[str, AnyReward] = field(default_factory=dict[str, AnyReward])

    def scores(
        self, prompts: Sequence[Prompt], texts: Sequence[str], images: Sequence[bytes] | None
    ) -> dict[str, np.ndarray]:
        """Every reward's score of each response (n,): `reward` and the names of the further ones.

        Args:
            prompts: of the responses (n,).
            texts: the responses (n,).
            images: their PNG files, if they are images.

        Raises:
            ConfigError: a reward of texts for images, or the reverse.
            RunError: a reward fails or gives something other than finite numbers.
        """
        found: dict[str, np.ndarray] = {}
        for name, reward in {"reward": self.first, **self.also}.items():
            if images is not None and isinstance(reward, ImageReward):
                values = _of_images(reward, list(prompts), images)
            elif images is None and isinstance(reward, Reward):
                say_cost(reward, prompts, texts)
                values = reward.score(list(prompts), list(texts))
            else:
                made, scored = ("images", "texts") if images is not None else ("texts", "images")
                raise ConfigError(
                    f"The reward ({name}) scores {scored}, and the generations are {made}. Name a reward of {made}."
                )
            found[name] = np.array(values, dtype=np.float64)
        return found

    def notes(self) -> tuple[str, ...]:
        """What the rewards did with responses that they could not score in full, since the last call."""
        return tuple(note for reward in (self.first, *self.also.values()) for note in notes_of(reward))


def _of_images(reward: ImageReward, prompts: list[Prompt], files: Sequence[bytes]) -> list[float]:
    """Scores of images, of which a few are decoded at a time."""
    values: list[float] = []
    for start in range(0, len(files), _DECODED):
        batch = [pillow().fromarray(decode(png)) for png in files[start : start + _DECODED]]
        values += reward.score_images(prompts[start : start + _DECODED], batch)
    return values


def configured_rewards(
    config: EvaluationConfig, *, images: bool, first: str | Callable[..., Any] | AnyReward | None = None
) -> Rewards | None:
    """The rewards of a configuration; None if it names none.

    Args:
        config: names them.
        images: the responses are images.
        first: a reward in the place of the first one.

    Raises:
        ConfigError: one names nothing usable, or scores the other kind of response; or a name is used twice.
    """
    load = loader(images=images)
    if first is not None:
        main = load(first)
    elif config.reward is not None:
        main = load(config.reward, **config.reward_options)
    else:
        return None
    return Rewards(main, {name: load(spec) for name, spec in _also(config).items()})


def check_rewards(config: EvaluationConfig, *, images: bool) -> None:
    """Find mistakes before any work; models and servers are not loaded.

    Raises:
        ConfigError, RunError: as for `configured_rewards`; a folder of a model or run is missing.
    """
    if config.reward is not None:
        check_reward(config.reward, config.reward_options, images=images)
    for spec in _also(config).values():
        check_reward(spec, {}, images=images)


def _also(config: EvaluationConfig) -> dict[str, str]:
    named: dict[str, str] = {}
    for spec in config.also:
        name = also_name(spec)
        if name in named or name in TAKEN:
            other = f"{named[name]!r} has it as well" if name in named else "generations have it already"
            raise ConfigError(
                f"evaluation.also: {spec!r} would be called '{name}', but {other}. Give the function another name."
            )
        named[name] = spec
    return named


def also_name(spec: str) -> str:
    """What a further reward is called: the name of its function, or its model's folder.

    Raises:
        ConfigError: it is a judge, a policy or the data's own ratings.

    Example:
        >>> also_name("looks.py:is_still_the_prompt"), also_name("model:models/PickScore_v1")
        ('is_still_the_prompt', 'PickScore_v1')
    """
    named = read_name(spec)
    if named.kind == "code":
        return named.place.rpartition(":")[2].replace(".", "_")
    if named.kind == "model":
        return Path(named.place).name
    raise ConfigError(f"evaluation.also takes functions and models, not {spec!r}. Make it evaluation.reward.")

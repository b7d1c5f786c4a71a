"""Generations that are images, and further rewards: what is measured, stored, and left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popmargin.data.images import encode_png, image_name
from popmargin.data.response_parts import Flat
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics, no_log_ratio
from popmargin.generate.drawn import Drawn, DrawnImages
from popmargin.rewards.configured import Rewards
from popmargin.rewards.load import load_image_reward

DRAWN = DrawnImages(20, 1.0)


def images(seed: int, prompts: int = 6, samples: int = 2, shift: float = 0.0) -> Generations:
    """Random pictures; reward: mean level, raised by `shift`; one further reward: share of red."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (prompts * samples, 4, 4, 3), dtype=np.uint8)
    files = [encode_png(picture) for picture in pixels]
    names = [image_name(file) for file in files]
    scores = {
        "reward": (pixels.mean(axis=(1, 2, 3)) / 255 + shift).tolist(),
        "red": pixels[..., 0].mean(axis=(1, 2)).tolist(),
    }
    responses = Responses(
        [f"colour {number}" for number in range(prompts)],
        [names[start : start + samples] for start in range(0, len(names), samples)],
        scores,
        fields={"image": Flat(files)},
        columns={"cluster": [None] * prompts},
    )
    return Generations(responses, DRAWN)


def test_only_rewards_and_win_rates_are_measured() -> None:
    """No length, no distinct-n of the names, and above all no KL: it is unknown, not 0."""
    run, reference = images(0, shift=1.0), images(1)
    found = generative_metrics(run, reference)
    assert set(found) == {"mean_reward", "mean_red", "win_rate_reference", "win_rate_baseline"}
    assert found["mean_reward"].estimate == pytest.approx(run.responses.score("reward").mean())
    assert found["mean_red"].estimate == pytest.approx(run.responses.score("red").mean())
    assert found["mean_red"].low < found["mean_red"].estimate < found["mean_red"].high
    assert found["win_rate_reference"].estimate == 1.0
    assert no_log_ratio(reference) == {}


def test_the_win_rate_pairs_samples_of_a_prompt() -> None:
    run, reference = images(0), images(1)
    ours, theirs = (of.responses.score("reward").reshape(6, 2) for of in (run, reference))
    wins = (ours[:, :, None] > theirs[:, None, :]).mean()
    assert generative_metrics(run, reference)["win_rate_reference"].estimate == pytest.approx(wins)


def test_differences_of_arms_include_further_rewards() -> None:
    found = generative_differences([images(0), images(1)], [images(2), images(3)], images(4))
    assert set(found) == {"mean_reward", "mean_red", "win_rate_reference"}
    expected = np.mean([images(s).responses.score("red").mean() for s in (0, 1)]) - np.mean(
        [images(s).responses.score("red").mean() for s in (2, 3)]
    )
    assert found["mean_red"].estimate == pytest.approx(expected)


def test_a_further_reward_that_one_arm_lacks_is_unknown() -> None:
    base = images(2)
    bare = Generations(base.responses.with_scores(red=None), DRAWN)
    assert np.isnan(generative_differences(images(0), bare)["mean_red"].estimate)


def test_texts_have_further_rewards_too() -> None:
    responses = Responses(
        ["a", "b", "c"], [["x"], ["y y"], ["z"]], {"reward": [1.0, 2.0, 3.0], "polite": [0.0, 1.0, 1.0]},
        tokens=[1, 2, 1],
        finished=[True] * 3, columns={"cluster": [None] * 3},
    )  # fmt: skip
    found = generative_metrics(Generations(responses))
    assert found["mean_polite"].estimate == pytest.approx(2 / 3)
    assert {"length", "distinct_1", "finished", "kl_per_token"} <= set(found)


def test_images_are_stored_with_how_they_were_drawn(tmp_path: Path) -> None:
    run = images(0)
    run.save(tmp_path / "generations.parquet")
    again = Generations.load(tmp_path / "generations.parquet")
    assert again.drawn == DRAWN
    assert again.of_images
    assert again.further == ("red",)
    assert again.responses.field("image") == run.responses.field("image")
    assert not Generations(Responses(["a"], [["b"]])).of_images


def test_images_drawn_differently_are_not_compared() -> None:
    other = Generations(images(1).responses, DrawnImages(10, 1.0))
    with pytest.raises(DataError, match=r"was sampled at 10 steps of DDIM, no guidance, others at 20 steps of DDIM"):
        generative_metrics(images(0), other)
    with pytest.raises(DataError, match="was sampled at"):
        generative_metrics(images(0), Generations(images(1).responses, Drawn()))


def test_images_are_scored_a_few_at_a_time_and_in_order() -> None:
    """Decoded images are large: a reward sees at most 64 of them at once."""
    seen: list[int] = []

    def level(prompts: list[str], images: list[Any]) -> list[float]:
        seen.append(len(images))
        return [float(image.getpixel((0, 0))[0]) for image in images]

    rewards = Rewards(load_image_reward(level))
    files = [encode_png(np.full((1, 1, 3), number, np.uint8)) for number in range(150)]
    assert rewards.scores(["x"] * 150, [""] * 150, files)["reward"].tolist() == list(range(150))
    assert max(seen) <= 64
    with pytest.raises(ConfigError, match=r"The reward \(reward\) scores images, and the generations are texts"):
        rewards.scores(["x"], ["y"], None)

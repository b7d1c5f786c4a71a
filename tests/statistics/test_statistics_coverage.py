"""Intervals that say 95% hold the truth in 93 to 97 of 100 simulated studies.

Each design is drawn 1,000 times, so that the share of a true 95% has a standard error of 0.7 points: 93 to 97 is 95
plus or minus 2.9 of them. The truth is that of the population of clusters and of seeds.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from popmargin.data.responses import Responses
from popmargin.evaluation.discriminative import discriminative_differences, discriminative_metrics
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_metrics
from popmargin.statistics.edge_mean import edge_mean
from popmargin.statistics.intervals import Clusters, Interval
from popmargin.statistics.jackknife import row_means, without_sets
from popmargin.statistics.medians import median_interval, ratio_of_medians
from popmargin.statistics.rank_correlation import kendall, spearman

Draw = Callable[[Any], Mapping[str, tuple[Interval, float]]]


def right(margin: Any) -> Any:
    return 0.5 * (1 + np.sign(margin))


def clustered_rows(rng: Any, clusters: int, most: int) -> Any:
    """Cluster of each row; clusters have 1 to `most` rows."""
    return np.repeat(np.arange(clusters), rng.integers(1, most + 1, clusters))


def single_rows_in_three_seeds(rng: Any) -> dict[str, tuple[Interval, float]]:
    """150 prompts of one preference each; margin = 0.5 + seed (sd 0.1) + preference (sd 1) + both (sd 0.7)."""
    preference, noise = rng.normal(0, 1, 150), rng.normal(0, 0.7, (2, 3, 150))
    arm, base = (0.5 + rng.normal(0, 0.1, (3, 1)) + preference + noise[a] for a in range(2))
    truth = float(norm.cdf(0.5 / np.sqrt(0.1**2 + 1 + 0.7**2)))
    mine, other = row_means(right(arm), range(150)), row_means(right(base), range(150))
    return {
        "accuracy": (mine.interval(scale="share"), truth),
        "margin": (row_means(arm, range(150)).interval(), 0.5),
        "difference in accuracy": (mine.minus(other), 0.0),
        "difference in margin": (row_means(arm, range(150)).minus(row_means(base, range(150))), 0.0),
    }


def ten_clusters_of_unequal_size(rng: Any) -> dict[str, tuple[Interval, float]]:
    """10 prompts with 1 to 20 preferences; margin = 0.5 + prompt (sd 0.7) + preference (sd 1), one seed."""
    clusters = clustered_rows(rng, 10, 20)
    margin = 0.5 + rng.normal(0, 0.7, 10)[clusters] + rng.normal(0, 1, len(clusters))
    other = margin + 0.3 * rng.normal(0, 1, 10)[clusters] + 0.5 * rng.normal(0, 1, len(clusters))
    truth = float(norm.cdf(0.5 / np.sqrt(0.7**2 + 1)))
    return {
        "accuracy": (row_means(right(margin)[None], clusters.tolist()).interval(scale="share"), truth),
        "margin": (row_means(margin[None], clusters.tolist()).interval(), 0.5),
        "difference": (row_means((other - margin)[None], clusters.tolist()).interval(), 0.0),
    }


def prompts_that_share_topics(rng: Any, by: str = "topic") -> dict[str, tuple[Interval, float]]:
    """16 topics of 1 to 12 prompts, 2 preferences each; margin = 0.5 + topic (sd 0.6) + prompt (0.5) + rest (0.7)."""
    topic_of_prompt = clustered_rows(rng, 16, 12)
    prompt = np.repeat(np.arange(len(topic_of_prompt)), 2)
    topic = topic_of_prompt[prompt]
    margin = 0.5 + rng.normal(0, 0.6, 16)[topic] + rng.normal(0, 0.5, len(topic_of_prompt))[prompt]
    margin = margin + rng.normal(0, 0.7, len(prompt))
    clusters = {"topic": topic, "prompt": prompt}[by].tolist()
    truth = float(norm.cdf(0.5 / np.sqrt(0.6**2 + 0.5**2 + 0.7**2)))
    return {
        "accuracy": (row_means(right(margin)[None], clusters).interval(scale="share"), truth),
        "margin": (row_means(margin[None], clusters).interval(), 0.5),
    }


def one_seed_against_five(rng: Any, seeds: int = 5) -> dict[str, tuple[Interval, float]]:
    """One run of an arm and some of its baseline, on 80 prompts: seeds differ by sd 0.2, cells by 0.7."""
    preference = rng.normal(0, 1, 80)
    arm = 0.5 + rng.normal(0, 0.2, (1, 1)) + preference + rng.normal(0, 0.7, (1, 80))
    base = 0.5 + rng.normal(0, 0.2, (seeds, 1)) + preference + rng.normal(0, 0.7, (seeds, 80))
    found = discriminative_differences(arm, base, strength=np.full(80, np.nan), clusters=[str(i) for i in range(80)])
    return {"accuracy": (found["accuracy"], 0.0), "margin": (found["reward_margin"], 0.0)}


def win_rates_and_ratios(rng: Any) -> dict[str, tuple[Interval, float]]:
    """60 prompts, 2 samples, 3 seeds against the reference: reward = seed (sd 0.1) + prompt (0.7) + sample (1).

    The reference has the prompt's reward minus 0.3 plus its own sample's. KL is 0.2 a token on average, in lengths that
    differ: log-ratio = length·(0.2 + seed (0.02) + prompt (0.05)) + noise.
    """
    prompt, rate = rng.normal(0, 0.7, 60), rng.normal(0, 0.05, 60)
    lengths = rng.integers(5, 60, 60)

    def run(reward: Any, per_token: Any) -> Generations:
        length = np.repeat(lengths, 2) + rng.integers(0, 20, 120)
        scores = {"reward": reward, "kl": length * per_token + rng.normal(0, 1, 120)}
        return Generations(Responses([str(i) for i in range(60)], [["a b"] * 2] * 60, scores, tokens=length))

    reference = run(np.repeat(prompt, 2) - 0.3 + rng.normal(0, 1, 120), np.zeros(120))
    runs = [
        run(
            np.repeat(prompt, 2) + rng.normal(0, 0.1) + rng.normal(0, 1, 120),
            0.2 + rng.normal(0, 0.02) + np.repeat(rate, 2),
        )
        for _ in range(3)
    ]
    found = generative_metrics(runs, reference)
    return {
        "win rate": (found["win_rate_reference"], float(norm.cdf(0.3 / np.sqrt(2 + 0.1**2)))),
        "reward": (found["mean_reward"], 0.0),
        "KL per token": (found["kl_per_token"], 0.2),
    }


def rank_correlations(rng: Any, rho: float = 0.5) -> dict[str, tuple[Interval, float]]:
    """40 prompts of one preference; margin and strength are normal with correlation ½: ρ_S = 6/π·asin(¼), τ = ⅓."""
    strength = rng.normal(0, 1, 40)
    margin = rho * strength + np.sqrt(1 - rho**2) * rng.normal(0, 1, 40)
    groups = Clusters(range(40))
    truths = {spearman: 6 / np.pi * np.arcsin(rho / 2), kendall: 2 / np.pi * np.arcsin(rho)}
    found: dict[str, tuple[Interval, float]] = {}
    for of_ranks, truth in truths.items():
        statistic = of_ranks(margin, strength, groups)
        estimate = without_sets(lambda _, counts, statistic=statistic: statistic(counts), groups, 1)
        found[of_ranks.__name__] = estimate.interval(scale="correlation"), float(truth)
    return found


def edges_of_a_ranking(rng: Any) -> dict[str, tuple[Interval, float]]:
    """Comparisons of random pairs, value a_i − a_j + noise around 0.2: every item is in about 4 edges; 3 seeds."""
    found: dict[str, tuple[Interval, float]] = {}
    for items in (20, 150):
        first, second = rng.integers(0, items, (2, 2 * items))
        effect = rng.normal(0, 0.5, items)
        values = 0.2 + effect[first] - effect[second] + rng.normal(0, 1, 2 * items)
        seeds = values + rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.5, (3, 2 * items))
        found[f"{items} items"] = edge_mean(values[None], first.tolist(), second.tolist()), 0.2
        found[f"{items} items, 3 seeds"] = edge_mean(seeds, first.tolist(), second.tolist()), 0.2
    return found


def medians(rng: Any) -> dict[str, tuple[Interval, float]]:
    """Seconds, lognormal: 60 of median 8, and 40 of median 12."""
    first, second = 8 * np.exp(rng.normal(0, 0.6, 60)), 12 * np.exp(rng.normal(0, 0.6, 40))
    one, other = median_interval(first, range(60)), median_interval(second, range(40))
    return {"median": (one, 8.0), "ratio": (ratio_of_medians(one, other), 8 / 12)}


DESIGNS: list[Draw] = [
    single_rows_in_three_seeds,
    ten_clusters_of_unequal_size,
    prompts_that_share_topics,
    one_seed_against_five,
    win_rates_and_ratios,
    rank_correlations,
    edges_of_a_ranking,
    medians,
]


def coverage(draw: Draw, rounds: int) -> dict[str, float]:
    inside = Counter[str]()
    names: list[str] = []
    for number in range(rounds):
        found = draw(np.random.default_rng([21, number]))
        names = list(found)
        for name, (interval, truth) in found.items():
            inside[name] += interval.low <= truth <= interval.high
    return {name: inside[name] / rounds for name in names}


@pytest.mark.parametrize("draw", DESIGNS)
def test_95_percent_intervals_cover_roughly(draw: Draw) -> None:
    """With 60 rounds the share has a standard error of 0.028."""
    assert all(0.86 <= share <= 1.0 for share in coverage(draw, 60).values())


@pytest.mark.slow
@pytest.mark.parametrize("draw", DESIGNS)
def test_95_percent_intervals_cover_93_to_97_percent(draw: Draw) -> None:
    found = coverage(draw, 1000)
    assert found and all(0.93 <= share <= 0.97 for share in found.values()), found


def calibrated(rng: Any, sureness: float = 1.0, rows: int = 400) -> Any:
    """Margins of a model that is right with the probability it gives, times how much too sure it is of it."""
    size = np.abs(rng.normal(0, 1.5, rows))
    return sureness * np.where(rng.random(rows) < expit(size), size, -size)


def error_of(margin: Any) -> Interval:
    clusters = [str(i // 2) for i in range(len(margin))]
    found = discriminative_metrics(reward_margin=margin, strength=np.full(len(margin), np.nan), clusters=clusters)
    return found.intervals["ece"]


def calibration_study(rounds: int, sureness: float) -> tuple[float, float, float]:
    """Share of studies whose interval holds the true error; the mean estimate; the truth, of a million rows."""
    truth = error_of_population(sureness)
    found = [error_of(calibrated(np.random.default_rng([22, number]), sureness)) for number in range(rounds)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in found])
    return float(covered), float(np.mean([interval.estimate for interval in found])), truth


def error_of_population(sureness: float) -> float:
    """With margins multiplied, in ten bins of equal mass: the mean distance of what is said from what is true."""
    size = np.sort(np.abs(np.random.default_rng(0).normal(0, 1.5, 1_000_000))).reshape(10, -1)
    return float(np.abs((expit(sureness * size) - expit(size)).mean(axis=1)).mean())


def test_a_calibrated_model_has_no_calibration_error() -> None:
    """The raw error of 400 rows is 0.06 by noise alone."""
    covered, mean, truth = calibration_study(40, 1.0)
    assert truth == 0.0 and covered >= 0.95 and mean < 0.015


@pytest.mark.slow
@pytest.mark.parametrize("sureness", [1.0, 1.5, 3.0])
def test_intervals_of_the_calibration_error_cover_at_least_as_often_as_they_say(sureness: float) -> None:
    covered, mean, truth = calibration_study(500, sureness)
    assert covered >= 0.94
    assert abs(mean - truth) < 0.03  # noise alone adds 0.06 to the raw error


@pytest.mark.slow
def test_topics_taken_for_prompts_would_not_cover() -> None:
    """The tests above can fail: prompts of one topic, taken as independent, give intervals that are much too short."""
    assert max(coverage(partial(prompts_that_share_topics, by="prompt"), 300).values()) < 0.90


@pytest.mark.slow
def test_one_run_of_each_arm_does_not_cover_other_seeds() -> None:
    """Why differences of one seed are no verdict: their intervals, over prompts alone, miss the population's."""
    assert max(coverage(partial(one_seed_against_five, seeds=1), 300).values()) < 0.90

"""How good generations are: reward, win rates (at equal length too), length, distinct-n, KL from the reference.

Axis suffixes: S seeds, P prompts, C columns; every prompt of a run has as many samples.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from popmargin.errors import DataError, counted
from popmargin.evaluation.equal_length import win_rate_at_equal_length
from popmargin.evaluation.generations import Generations
from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval
from popmargin.statistics.jackknife import Estimate, ratio, without_each, without_sets

_WORD = re.compile(r"\w+|[^\w\s]")
_CELLS = 2**20
_WIN_RATES = ("win_rate_reference", "win_rate_baseline", "win_rate_equal_length")
_SHARES = (*_WIN_RATES, "finished")

Runs = Generations | Sequence[Generations]


def generative_metrics(
    run: Runs,
    reference: Runs | None = None,
    baseline: Runs | None = None,
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Metrics of generations with intervals by clusters of prompts; for several seeds, means, also over seeds.

    win rate = P(reward of this run > reward of the other on the same prompt) over all pairs of their samples, ties ½;
    kl_per_token = Σ kl / Σ lengths over all completions, nats: an estimate of KL(π‖π_ref) a token, given only for
    samples of the policy itself (temperature 1, no cut, nothing of the model's generation config); for others the
    same mean is no KL and is named with its settings (`Drawn.log_ratio`), e.g. log_ratio_per_token_t0.7_k50;
    distinct_n = different n-grams / n-grams over all completions (Li et al. 2016), words and punctuation marks in lower
    case; it falls with the number of completions, so compare runs of equal size. Intervals are computed as in
    `discriminative_metrics`; `p` of the win rates tests them against ½.

    Args:
        run: generations of one seed, or of several seeds on the same prompts.
        reference: of the reference model on the same prompts: one for all seeds, or one per seed.
        baseline: of the arm to compare with: one for all seeds, or one per seed.
        level: of the intervals.

    Returns:
        mean_reward, mean_NAME of each further reward (`evaluation.also`), win_rate_reference, win_rate_baseline,
        win_rate_equal_length (against the reference; ours, see `win_rate_at_equal_length`), length (tokens),
        length_difference (tokens, minus the reference's), distinct_1, distinct_2, kl_per_token (or its other name),
        finished; nan if undefined. Of images, only rewards and win rates.

    Raises:
        DataError: runs on different prompts or drawn differently, prompts with different numbers of samples, or numbers
            of seeds that do not fit.
    """
    runs = _aligned(run, None, "run")
    against = {
        "reference": None if reference is None else _aligned(reference, runs, "reference"),
        "baseline": None if baseline is None else _aligned(baseline, runs, "baseline"),
    }
    return _metrics([runs], [against], level)


def no_log_ratio(reference: Generations) -> dict[str, Interval]:
    """The reference's log-ratio to itself, which is 0; nothing for images, which have none."""
    name = reference.drawn.log_ratio
    return {} if name is None else {name: Interval(0.0, 0.0, 0.0)}


def generative_differences(
    run: Runs,
    baseline: Runs,
    reference: Runs | None = None,
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Differences (this arm minus the baseline arm) on the same prompts, each with its p-value.

    Args:
        run, baseline: generations of both arms. With equal numbers of seeds, seed s is compared with seed s; otherwise
            the seeds are independent, and one arm may have a single one.
        reference: of the reference model on the same prompts, one for all seeds.
        level: of the intervals.

    Returns:
        The difference for each key of `generative_metrics` except win_rate_baseline and length_difference.

    Raises:
        DataError: as there.
    """
    runs = _aligned(run, None, "run")
    others = _aligned(baseline, None, "baseline")
    _same_prompts(others, runs, "baseline")
    against = [
        {"reference": None if reference is None else _aligned(reference, arm, "reference"), "baseline": None}
        for arm in (runs, others)
    ]
    result = _metrics([runs, others], against, level)
    return {name: value for name, value in result.items() if name not in ("win_rate_baseline", "length_difference")}


def _aligned(run: Runs, like: list[Generations] | None, name: str) -> list[Generations]:
    """Runs as a list, one per seed of `like`, all on the same prompts in the same order."""
    runs = [run] if isinstance(run, Generations) else list(run)
    if not runs or not len(runs[0].responses):
        raise DataError(f"{name}: there are no generations to evaluate.")
    if like is not None and len(runs) == 1:
        runs = runs * len(like)
    if like is not None and len(runs) != len(like):
        raise DataError(f"{name}: {counted(len(runs), 'seed')} against {len(like)}; give the same seeds in both.")
    _same_prompts(runs, runs if like is None else like, name)
    return runs


def _same_prompts(runs: list[Generations], like: list[Generations], name: str) -> None:
    first, keys = like[0], like[0].responses.prompt_keys
    for number, other in enumerate(runs):
        counts, found = other.responses.counts, other.responses.prompt_keys
        odd = np.flatnonzero(counts != counts[:1])
        if len(odd):
            raise DataError(
                f"{name}: run {number} has {counts[odd[0]]} responses to prompt {odd[0]} and {counts[0]} to the first. "
                "Metrics need equally many to each prompt: sample again, or leave prompts out with select."
            )
        if found != keys:
            raise DataError(
                f"{name}: run {number} is on different prompts ({len(found)} against {len(keys)}, or in another "
                "order). Generate all runs from the same prompts."
            )
        if other.drawn != first.drawn:
            raise DataError(
                f"{name}: run {number} was sampled at {other.drawn}, others at {first.drawn}. Generate all with the "
                "same settings."
            )


Against = dict[str, list[Generations] | None]


def _metrics(arms: list[list[Generations]], against: list[Against], level: float) -> dict[str, Interval]:
    """Intervals for one arm, or for the first minus the second."""
    groups = Clusters(arms[0][0].responses.clusters)
    found = [_estimates(arm, others, groups) for arm, others in zip(arms, against, strict=True)]
    result: dict[str, Interval] = {}
    for name in found[0]:
        estimates: list[Any] = [of_arm.get(name) for of_arm in found]
        if any(estimate is None for estimate in estimates):
            result[name] = UNDEFINED  # nothing to compare with, or not scored
        elif len(estimates) == 2:
            result[name] = estimates[0].minus(estimates[1], level=level)
        else:
            scale = "share" if name in _SHARES else "plain"
            interval = estimates[0].interval(level=level, scale=scale, null=0.5 if name in _WIN_RATES else None)
            result[name] = interval.clip(0.0, 1.0) if name.startswith("distinct") else interval
    return result


def _estimates(runs: list[Generations], against: Against, groups: Clusters) -> dict[str, Any]:
    """Each metric's `Estimate`; None if it was not measured."""
    reference, baseline = against["reference"], against["baseline"]
    columns: dict[str, Any] = {
        "mean_reward": _columns(runs, "reward"),
        "win_rate_reference": reference and _wins(runs, reference),
        "win_rate_baseline": baseline and _wins(runs, baseline),
    }
    columns |= {further_metric(name): _columns(runs, name) for name in runs[0].further}
    name = runs[0].drawn.log_ratio
    if not runs[0].of_images:
        columns |= {
            "length": _columns(runs, "tokens"),
            "length_difference": reference and _length_columns(runs, reference),
            **({name: _columns(runs, "kl", "tokens")} if name else {}),
            "finished": _columns(runs, "finished"),
        }
    known = {name: part is not None and bool(np.isfinite(part).all()) for name, part in columns.items()}
    found = {name: without_each(part, groups, ratio) if known[name] else None for name, part in columns.items()}
    if runs[0].of_images:
        return found
    found["win_rate_equal_length"] = won = found["win_rate_reference"]
    if won is not None and found["length_difference"] is None:
        found["win_rate_equal_length"] = None
    elif won is not None and 0 < won.value < 1:  # otherwise length has nothing to explain
        found["win_rate_equal_length"] = _equal_length(runs, reference, groups)
    for n in (1, 2):
        found[f"distinct_{n}"] = _distinct(runs, groups, n)
    return found


def reward_estimate(run: Runs) -> Estimate:
    """The mean reward of generations, with what each prompt adds to it.

    Args:
        run: of one arm, a run or one for each seed.

    Raises:
        DataError: as `generative_metrics`.
    """
    runs = _aligned(run, None, "run")
    return without_each(_columns(runs, "reward"), Clusters(runs[0].responses.clusters), ratio)


def further_metric(name: str) -> str:
    """The metric of a further reward.

    Example:
        >>> further_metric("is_still_the_prompt")
        'mean_is_still_the_prompt'
    """
    return f"mean_{name}"


def _numbers(run: Generations, name: str) -> Any:
    """A score or a field by prompt (P, samples); nan where it is not known."""
    of = run.responses
    if name in of.score_names:
        values: Any = of.score(name)
    else:
        values = of.field(name) if name in of.field_names else np.full(len(of.texts), np.nan)
    return np.array(values, dtype=np.float64).reshape(len(of), -1)


def _columns(runs: list[Generations], value: str, weight: str | None = None) -> Any:
    """Sums over the samples of each prompt of a value and of its weight (S, P, 2), or of their number."""
    rows: list[Any] = []
    for run in runs:
        values = _numbers(run, value)
        weights = np.ones_like(values) if weight is None else _numbers(run, weight)
        rows.append(np.stack([values.sum(axis=1), weights.sum(axis=1)], axis=-1))
    return np.stack(rows)


def _length_columns(runs: list[Generations], others: list[Generations]) -> Any:
    rows = [
        _numbers(run, "tokens").mean(axis=1) - _numbers(other, "tokens").mean(axis=1)
        for run, other in zip(runs, others, strict=True)
    ]
    return np.stack([np.stack([row, np.ones_like(row)], axis=-1) for row in rows])


def _pairs(run: Generations, other: Generations) -> tuple[Any, Any]:
    """Win (1, ½, 0) and length difference of every pair of samples on a prompt, each (P, pairs)."""
    rows = len(run.responses)
    reward, length = (
        _numbers(run, name)[:, :, None] - _numbers(other, name)[:, None, :] for name in ("reward", "tokens")
    )
    return 0.5 * (1.0 + np.sign(reward)).reshape(rows, -1), length.reshape(rows, -1)


def _wins(runs: list[Generations], others: list[Generations]) -> Any:
    rows = [_pairs(run, other)[0].mean(axis=1) for run, other in zip(runs, others, strict=True)]
    return np.stack([np.stack([row, np.ones_like(row)], axis=-1) for row in rows])


def _equal_length(runs: list[Generations], reference: Any, groups: Clusters) -> Estimate:
    pairs = [_pairs(run, other) for run, other in zip(runs, reference, strict=True)]

    def statistic(s: int, counts_rG: Any) -> Any:
        wins, difference = pairs[s]
        # Each prompt weighs 1, as in the win rate, however many pairs of samples it has.
        weights = counts_rG[:, groups.of_row] / wins.shape[1]
        block = max(1, _CELLS // wins.size)
        return np.concatenate(
            [
                win_rate_at_equal_length(
                    wins.ravel(),
                    difference.ravel(),
                    np.repeat(weights[start : start + block], wins.shape[1], axis=1),
                )
                for start in range(0, len(weights), block)
            ]
        )

    return without_sets(statistic, groups, len(runs))


def distinct_counts(completions: Sequence[str], clusters: Clusters, n: int) -> tuple[int, int, Any, Any]:
    """Distinct n-grams, all n-grams, and for each cluster (G,) those only in it and all in it."""
    holders: dict[tuple[str, ...], int] = {}
    held = Counter[int]()
    for text, cluster in zip(completions, clusters.of_row.tolist(), strict=True):
        words = _WORD.findall(text.lower())
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        held[cluster] += len(grams)
        for gram in grams:
            if holders.setdefault(gram, cluster) != cluster:
                holders[gram] = -1  # it is in several clusters
    only = Counter(holders.values())
    total = np.array([held[g] for g in range(clusters.count)], dtype=np.float64)
    unique = np.array([only[g] for g in range(clusters.count)], dtype=np.float64)
    return len(holders), int(total.sum()), unique, total


def _distinct(runs: list[Generations], groups: Clusters, n: int) -> Estimate | None:
    """distinct_n; None without n-grams."""
    clusters = groups.of_row.tolist()
    per_seed, without = np.zeros(len(runs)), np.zeros((len(runs), groups.count))
    for s, run in enumerate(runs):
        of = run.responses
        of_response = np.repeat(clusters, of.counts).tolist()
        different, total, unique, held = distinct_counts(cast(list[str], of.texts), Clusters(of_response), n)
        if not total:
            return None
        per_seed[s] = different / total
        with np.errstate(divide="ignore", invalid="ignore"):
            without[s] = (different - unique) / (total - held)
    return Estimate(per_seed, (groups.count - 1) * (per_seed[:, None] - without), groups.sizes)

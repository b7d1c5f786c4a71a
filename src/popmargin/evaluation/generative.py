"""How good generations are: reward, win rates (at equal length too), length, distinct-n, KL from the reference.

Axis suffixes: S seeds, P prompts, C columns; n completions (prompts x samples, all samples of a prompt together).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64

from popmargin.data.conversation import prompt_of_key
from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.evaluation.equal_length import win_rate_at_equal_length
from popmargin.files import PARQUET, whole_file
from popmargin.generate.drawn import POLICY_ITSELF, Drawn
from popmargin.statistics.intervals import UNDEFINED, Clusters, Interval
from popmargin.statistics.jackknife import Estimate, ratio, without_each, without_sets

_SAMPLES_KEY = b"popmargin.samples_per_prompt"
_DRAWN_KEY = b"popmargin.drawn"
_NOTES_KEY = b"popmargin.notes"
_WORD = re.compile(r"\w+|[^\w\s]")
_CELLS = 2**20
_WIN_RATES = ("win_rate_reference", "win_rate_baseline", "win_rate_equal_length")
_SHARES = (*_WIN_RATES, "finished")


@dataclass(frozen=True, eq=False)
class Generations:
    """Completions of one model on held-out prompts, with their rewards.

    Attributes:
        prompts: readable prompts (P,).
        prompt_keys: canonical prompts (P,).
        samples_per_prompt: completions for each prompt.
        completions: texts (n,), n = P x samples_per_prompt, all samples of a prompt together.
        rewards: reward units (n,); all nan when nothing scored them.
        lengths: tokens (n,).
        finished: True where the completion ended by itself (n,).
        kl: summed log π(y) - log π_ref(y) of the sampled completion, nats (n,); all nan when not measured.
        drawn: how the completions were drawn; the mean of `kl` estimates a KL only where they are samples of the policy
            itself.
        clusters: what depends on each other (P,): what the data name as `cluster`, else the prompt; empty for prompts.
        notes: what the reward did with completions that it could not score as they are, in sentences.

    Raises:
        DataError: the parts differ in number, or a reward or KL is not finite.
    """

    prompts: list[str]
    prompt_keys: list[str]
    samples_per_prompt: int
    completions: list[str]
    rewards: Float64[np.ndarray, " n"]
    lengths: Int64[np.ndarray, " n"]
    finished: Bool[np.ndarray, " n"]
    kl: Float64[np.ndarray, " n"]
    drawn: Drawn = POLICY_ITSELF
    clusters: list[str] = field(default_factory=list[str])
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.prompts) * self.samples_per_prompt
        expected = {"prompt_keys": len(self.prompts)} | ({"clusters": len(self.prompts)} if self.clusters else {})
        expected |= {part.name: count for part in fields(self)[3:] if part.name not in ("drawn", "clusters", "notes")}
        for name, size in expected.items():
            if len(getattr(self, name)) != size:
                raise DataError(
                    f"{len(self.prompts)} prompts x {self.samples_per_prompt} samples, but {len(getattr(self, name))} "
                    f"{name}; expected {size}."
                )
        for name in ("rewards", "kl"):
            values = getattr(self, name)
            wrong = np.flatnonzero(~np.isfinite(values))
            if len(wrong) and not np.isnan(values).all():
                raise DataError(
                    f"{name} of {len(wrong)} completions is not finite, first completion {wrong[0]} (prompt "
                    f"{self.prompts[wrong[0] // self.samples_per_prompt][:80]!r}). Check the reward that scored it."
                )

    @property
    def responses(self) -> Responses:
        """The same as responses, with the scores reward and kl where they were measured: `Responses.load` reads them of
        the file that `save` writes, and their `pairs` are preferences to train on."""
        counts = range(0, len(self.completions), self.samples_per_prompt)
        prompts = zip(self.prompt_keys, self.prompts, strict=True)
        scores = {"reward": self.rewards, "kl": self.kl}
        return Responses(
            [shown if key == shown else prompt_of_key(key) for key, shown in prompts],
            [self.completions[start : start + self.samples_per_prompt] for start in counts],
            {name: values for name, values in scores.items() if not np.isnan(values).all()},
            tokens=self.lengths,
            finished=self.finished,
            columns={"cluster": self.clusters} if self.clusters else {},
        )

    def save(self, path: str | Path) -> None:
        """Write one row a completion as Parquet.

        Raises:
            ConfigError: the name does not end in .parquet.
            RunError: the path is a folder, or cannot be written.
        """
        row = np.repeat(np.arange(len(self.prompts)), self.samples_per_prompt)
        columns: dict[str, Any] = {
            "prompt": pa.array(self.prompts, pa.string()).take(pa.array(row)),
            "prompt_key": pa.array(self.prompt_keys, pa.string()).take(pa.array(row)),
            "completion": pa.array(self.completions, pa.string()),
            "reward": pa.array(self.rewards, pa.float64()),
            "length": pa.array(self.lengths, pa.int64()),
            "finished": pa.array(self.finished, pa.bool_()),
            "kl": pa.array(self.kl, pa.float64()),
        }
        if self.clusters:
            columns["cluster"] = pa.array(self.clusters, pa.string()).take(pa.array(row))
        facts = {_SAMPLES_KEY: str(self.samples_per_prompt), _DRAWN_KEY: json.dumps(asdict(self.drawn))}
        facts |= {_NOTES_KEY: json.dumps(self.notes)} if self.notes else {}
        table = pa.table(columns).replace_schema_metadata({key: text.encode() for key, text in facts.items()})
        with whole_file(path, PARQUET) as partial:
            pq.write_table(table, partial, compression="zstd")

    def first(self, prompts: int) -> "Generations":
        """The completions of the first so many prompts."""
        count = min(prompts, len(self.prompts)) * self.samples_per_prompt
        return Generations(
            prompts=self.prompts[:prompts],
            prompt_keys=self.prompt_keys[:prompts],
            samples_per_prompt=self.samples_per_prompt,
            completions=self.completions[:count],
            rewards=self.rewards[:count],
            lengths=self.lengths[:count],
            finished=self.finished[:count],
            kl=self.kl[:count],
            drawn=self.drawn,
            clusters=self.clusters[:prompts],
            notes=self.notes,
        )

    @staticmethod
    def load(path: str | Path) -> "Generations":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or is not a file of generations.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file. Generate it with: popmargin eval RUN")
        try:
            table = pq.read_table(path)
            facts = table.schema.metadata or {}
            samples = int(facts[_SAMPLES_KEY])
            if _DRAWN_KEY not in facts:
                raise DataError(
                    f"{path} does not say how its completions were sampled. Generate again: popmargin eval."
                )
            drawn = Drawn(**json.loads(facts[_DRAWN_KEY]))
            notes = tuple(json.loads(facts.get(_NOTES_KEY, "[]")))
            columns = {name: table[name] for name in ("prompt", "prompt_key", "completion")}
            clusters = table["cluster"].to_pylist()[::samples] if "cluster" in table.column_names else []
            numbers = {name: table[name].to_numpy() for name in ("reward", "length", "finished", "kl")}
        except DataError:
            raise
        except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of generations ({error!r}). Generate again.") from error
        return Generations(
            prompts=columns["prompt"].to_pylist()[::samples],
            prompt_keys=columns["prompt_key"].to_pylist()[::samples],
            samples_per_prompt=samples,
            completions=columns["completion"].to_pylist(),
            rewards=numbers["reward"].astype(np.float64),
            lengths=numbers["length"].astype(np.int64),
            finished=numbers["finished"].astype(bool),
            kl=numbers["kl"].astype(np.float64),
            drawn=drawn,
            clusters=clusters,
            notes=notes,
        )


Runs = Generations | Sequence[Generations]


def generative_metrics(
    run: Runs,
    reference: Runs | None = None,
    baseline: Runs | None = None,
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Metrics of generations with intervals by clusters of prompts; for several seeds, means whose spread they hold.

    win rate = P(reward of this run > reward of the other on the same prompt) over all pairs of their samples, ties ½;
    kl_per_token = Σ kl / Σ lengths over all completions, nats: an estimate of KL(π‖π_ref) a token, given only for
    samples of the policy itself (temperature 1, no top-k cut, nothing of the model's generation config); for others the
    same mean is no KL and is named with its settings (`Drawn.log_ratio`), e.g. log_ratio_per_token_t0.7_k50;
    distinct_n = different n-grams / n-grams over all completions (Li et al. 2016), words and punctuation marks in lower
    case; it falls with the number of completions, so compare runs of equal size. Intervals are made as in
    `discriminative_metrics`; `p` of the win rates tests them against one half.

    Args:
        run: generations of one seed, or of several seeds on the same prompts.
        reference: of the reference model on the same prompts: one for all seeds, or one for each.
        baseline: of the arm to compare with: one for all seeds, or one for each.
        level: of the intervals.

    Returns:
        mean_reward, win_rate_reference, win_rate_baseline, win_rate_equal_length (against the reference; ours, see
        `win_rate_at_equal_length`), length (tokens), length_difference (tokens, minus the reference's), distinct_1,
        distinct_2, kl_per_token (or its other name), finished; nan where not defined.

    Raises:
        DataError: runs on different prompts or drawn differently, or numbers of seeds that do not fit.
    """
    runs = _aligned(run, None, "run")
    against = {
        "reference": None if reference is None else _aligned(reference, runs, "reference"),
        "baseline": None if baseline is None else _aligned(baseline, runs, "baseline"),
    }
    return _metrics([runs], [against], level)


def generative_differences(
    run: Runs,
    baseline: Runs,
    reference: Runs | None = None,
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Differences (this arm minus the baseline arm) on the same prompts, each with its p-value.

    Args:
        run, baseline: generations of both arms. With equal numbers of seeds, seed s is compared with seed s; else the
            seeds vary on their own, and one arm may have a single one.
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
    """Runs as a list of one for each seed of `like`, all on the same prompts in the same order."""
    runs = [run] if isinstance(run, Generations) else list(run)
    if not runs or not runs[0].prompts:
        raise DataError(f"{name}: there are no generations to evaluate.")
    if like is not None and len(runs) == 1:
        runs = runs * len(like)
    if like is not None and len(runs) != len(like):
        raise DataError(f"{name}: {len(runs)} seeds against {len(like)}; give the same seeds in both.")
    _same_prompts(runs, runs if like is None else like, name)
    return runs


def _same_prompts(runs: list[Generations], like: list[Generations], name: str) -> None:
    first = like[0]
    for number, other in enumerate(runs):
        if other.prompt_keys != first.prompt_keys:
            raise DataError(
                f"{name}: run {number} is on different prompts ({len(other.prompt_keys)} against "
                f"{len(first.prompt_keys)}, "
                "or in another order). Generate all runs from the same prompts."
            )
        if other.drawn != first.drawn:
            raise DataError(
                f"{name}: run {number} was sampled at {other.drawn}, others at {first.drawn}. Generate all with the "
                "same settings."
            )


Against = dict[str, list[Generations] | None]


def _metrics(arms: list[list[Generations]], against: list[Against], level: float) -> dict[str, Interval]:
    """Intervals of one arm, or of the first minus the second."""
    first = arms[0][0]
    groups = Clusters(first.clusters or first.prompt_keys)
    found = [_estimates(arm, others, groups) for arm, others in zip(arms, against, strict=True)]
    result: dict[str, Interval] = {}
    for name in found[0]:
        estimates = [of_arm[name] for of_arm in found]
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
    """Each metric's `Estimate`; None where it was not measured."""
    reference, baseline = against["reference"], against["baseline"]
    columns: dict[str, Any] = {
        "mean_reward": _columns(runs, lambda g: g.rewards),
        "win_rate_reference": reference and _wins(runs, reference),
        "win_rate_baseline": baseline and _wins(runs, baseline),
        "length": _columns(runs, lambda g: g.lengths),
        "length_difference": reference and _length_columns(runs, reference),
        runs[0].drawn.log_ratio: _columns(runs, lambda g: g.kl, lambda g: g.lengths),
        "finished": _columns(runs, lambda g: g.finished),
    }
    known = {name: part is not None and bool(np.isfinite(part).all()) for name, part in columns.items()}
    found = {name: without_each(part, groups, ratio) if known[name] else None for name, part in columns.items()}
    found["win_rate_equal_length"] = won = found["win_rate_reference"]
    if won is not None and 0 < won.value < 1:  # else length has nothing to explain
        found["win_rate_equal_length"] = _equal_length(runs, reference, groups)
    for n in (1, 2):
        found[f"distinct_{n}"] = _distinct(runs, groups, n)
    return found


def _by_prompt(values: Any, run: Generations) -> Any:
    return np.asarray(values, dtype=np.float64).reshape(len(run.prompts), run.samples_per_prompt)


def _columns(
    runs: list[Generations],
    value: Callable[[Generations], Any],
    weight: Callable[[Generations], Any] = lambda g: np.ones(len(g.completions)),
) -> Any:
    """Sums over the samples of each prompt of a value and of its weight (S, P, 2)."""
    return np.stack([np.stack([_by_prompt(f(g), g).sum(axis=1) for f in (value, weight)], axis=-1) for g in runs])


def _length_columns(runs: list[Generations], others: list[Generations]) -> Any:
    rows = [
        _by_prompt(run.lengths, run).mean(axis=1) - _by_prompt(other.lengths, other).mean(axis=1)
        for run, other in zip(runs, others, strict=True)
    ]
    return np.stack([np.stack([row, np.ones_like(row)], axis=-1) for row in rows])


def _pairs(run: Generations, other: Generations) -> tuple[Any, Any]:
    """Win (1, ½, 0) and length difference of every pair of samples on a prompt, each (P, pairs)."""
    rows = len(run.prompts)
    reward = _by_prompt(run.rewards, run)[:, :, None] - _by_prompt(other.rewards, other)[:, None, :]
    length = _by_prompt(run.lengths, run)[:, :, None] - _by_prompt(other.lengths, other)[:, None, :]
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
    """Different n-grams, all n-grams, and for each cluster (G,) those that only it holds and all that it holds."""
    holders: dict[tuple[str, ...], int] = {}
    held = Counter[int]()
    for text, cluster in zip(completions, clusters.of_row.tolist(), strict=True):
        words = _WORD.findall(text.lower())
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        held[cluster] += len(grams)
        for gram in grams:
            if holders.setdefault(gram, cluster) != cluster:
                holders[gram] = -1  # several clusters hold it
    only = Counter(holders.values())
    total = np.array([held[g] for g in range(clusters.count)], dtype=np.float64)
    unique = np.array([only[g] for g in range(clusters.count)], dtype=np.float64)
    return len(holders), int(total.sum()), unique, total


def _distinct(runs: list[Generations], groups: Clusters, n: int) -> Estimate | None:
    """distinct_n; None without any n-gram."""
    clusters = groups.of_row.tolist()
    per_seed, without = np.zeros(len(runs)), np.zeros((len(runs), groups.count))
    for s, run in enumerate(runs):
        of_completion = [cluster for cluster in clusters for _ in range(run.samples_per_prompt)]
        different, total, unique, held = distinct_counts(run.completions, Clusters(of_completion), n)
        if not total:
            return None
        per_seed[s] = different / total
        with np.errstate(divide="ignore", invalid="ignore"):
            without[s] = (different - unique) / (total - held)
    return Estimate(per_seed, (groups.count - 1) * (per_seed[:, None] - without), groups.sizes)

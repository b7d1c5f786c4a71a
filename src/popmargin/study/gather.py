"""From run directories to the numbers of a report."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popmargin.config import RunConfig
from popmargin.data.tokenize import prompt_text
from popmargin.errors import RunError, counted
from popmargin.evaluation.discriminative import discriminative_differences, discriminative_metrics
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics, no_log_ratio
from popmargin.evaluation.goal_sweep import GOALS, GoalCurve, GoalSweep, goal_curve
from popmargin.evaluation.run import HeldOutMargins
from popmargin.objectives.aps import TAU_BINS
from popmargin.pop.edges import PopEdges
from popmargin.report.curves import ERRORS
from popmargin.report.pictures import MAX_ROWS, thumbnail
from popmargin.report.results import ArmResult, StudyResults
from popmargin.rewards.naming import read_name
from popmargin.safe_reading import read_json
from popmargin.statistics.calibration import share_right
from popmargin.statistics.intervals import Interval
from popmargin.statistics.jackknife import row_means
from popmargin.study.reading import read_control, read_reference, read_results
from popmargin.training.build import make_loss
from popmargin.training.run_directory import RunDirectory
from popmargin.training.trainer import Loss

_TRAINING = (
    "loss",
    "reward_margin",
    "target_margin_mean",
    "target_margin_std",
    "target_margin_clipped",
    "chosen_logratio",
    "rejected_logratio",
    *ERRORS,
    *(f"tau_bin_{number}" for number in range(1, TAU_BINS + 1)),
)
_SAMPLES = 5
_DATA = {
    "demo": "the embedded controlled-sentiment data",
    "demo-digits": "pairs of pictures of the embedded digit model, by the amount of ink",
    "demo-emoji": "pairs of pictures of the embedded emoji model, by the amount of red",
}
_MODELS = {
    "demo": "SmolLM2-135M-Instruct (embedded)",
    "demo-digits": "coloured digits, U-Net of 0.5 M (embedded)",
    "demo-emoji": "emoji, U-Net of 2.1 M (embedded)",
}


@dataclass(frozen=True)
class Arm:
    """The runs of one arm, and their metrics."""

    name: str
    runs: list[RunDirectory]
    configs: list[RunConfig]
    margins: list[HeldOutMargins]
    generations: list[Generations] | None
    goals: GoalCurve | None = None

    @staticmethod
    def load(name: str, runs: Sequence[RunDirectory]) -> "Arm":
        """Read the runs of one arm.

        Raises:
            RunError: one has not finished or was not evaluated.
        """
        for run in runs:
            run.facts()
        margins = [HeldOutMargins.load(run.evaluation / "margins.parquet") for run in runs]
        files = [run.evaluation / "generations.parquet" for run in runs]
        generations = [Generations.load(file) for file in files] if all(f.is_file() for f in files) else None
        sweeps = [GoalSweep.load(run.evaluation / GOALS) for run in runs]
        found = [sweep for sweep in sweeps if sweep is not None]
        goals = goal_curve(found) if found and len(found) == len(sweeps) else None
        return Arm(name, list(runs), [run.config() for run in runs], margins, generations, goals)

    @property
    def margins_by_seed(self) -> np.ndarray:
        """Held-out reward margins (seeds, preferences)."""
        return np.stack([margins.reward_margin for margins in self.margins])


def group_runs(paths: Sequence[str | Path]) -> dict[str, list[RunDirectory]]:
    """Run directories by arm name, seeds in order; a study's folder means all its runs.

    Raises:
        RunError: a path contains no run.
    """
    directories: list[RunDirectory] = []
    for path in map(Path, paths):
        inside = sorted(path.glob("runs/*/seed-*/config.yaml"))
        directories += [RunDirectory(file.parent) for file in inside] or [RunDirectory(path)]
    arms: dict[str, list[tuple[int, RunDirectory]]] = {}
    for directory in directories:
        config = directory.config()
        arms.setdefault(config.name, []).append((config.seed, directory))
    result: dict[str, list[RunDirectory]] = {}
    for name, entries in arms.items():
        seeds = [seed for seed, _ in entries]
        if len(set(seeds)) < len(seeds):
            raise RunError(f"Two runs are called '{name}' with the same seed; give one a different `name`.")
        result[name] = [directory for _, directory in sorted(entries, key=lambda entry: entry[0])]
    return result


def collect(
    runs: Mapping[str, Sequence[RunDirectory]],
    *,
    title: str,
    baseline: str,
    labels: Mapping[str, str],
    config: str,
    facts: Mapping[str, str] | None = None,
) -> StudyResults:
    """The results of runs on the same held-out preferences.

    Args:
        runs: run directories by arm.
        title: heading.
        baseline: the arm that the others are compared with.
        labels: what to call the arms.
        config: YAML shown in the report.
        facts: further rows of the report's table about the data.

    Raises:
        RunError: the runs were measured on different data.
    """
    arms = {name: Arm.load(name, directories) for name, directories in runs.items()}
    if baseline not in arms:
        raise RunError(f"The baseline '{baseline}' is not among the runs: {', '.join(arms)}.")
    base = arms[baseline]
    fingerprints = {run.facts()["test_fingerprint"] for arm in arms.values() for run in arm.runs}
    if len(fingerprints) > 1 or any(arm.margins[0].ids != base.margins[0].ids for arm in arms.values()):
        raise RunError("The runs were measured on different held-out preferences and cannot be compared.")
    reference = _load_generations(base.runs[0].evaluation / "reference_generations.parquet")
    results = [_arm_result(arm, base, reference, labels.get(arm.name, arm.name)) for arm in arms.values()]
    of_reference: dict[str, Interval] = {}
    if reference is not None:
        of_reference = generative_metrics(reference)
        of_reference |= no_log_ratio(reference)
    of_base = base.runs[0].facts()
    return StudyResults(
        title=title,
        arms=results,
        reference=of_reference,
        responses="images" if "images" in _loss(base).provides else "texts",
        reference_samples=[] if reference is None else _samples(reference),
        reward=_reward_name(base) if "images" in _loss(base).provides else "",
        baseline=baseline,
        reading=[
            *read_results(results, baseline),
            *_over_goals(arms, labels),
            *_against_controls(arms, reference, labels),
            *_against_references(arms, results),
        ],
        data=_data_facts(of_base, base.configs[0], arms) | dict(facts or {}),
        config=config,
        account=_account(arms, labels),
        versions=of_base["versions"],
        fingerprint=hashlib.sha256(
            json.dumps([of_base["train_fingerprint"], of_base["test_fingerprint"], config]).encode()
        ).hexdigest(),
    )


def _account(arms: Mapping[str, Arm], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The data steps of all arms, in order, without repetition; from each arm's first seed."""
    whose: dict[str, list[str]] = {}
    for arm in arms.values():
        run = arm.runs[0]
        measured = run.evaluation / "metrics.json"
        evaluated = read_json(measured) if measured.is_file() else {}
        for step in [*run.facts().get("account", []), *evaluated.get("account", [])]:
            label = labels.get(arm.name, arm.name)
            told = whose.setdefault(json.dumps(step), [])
            told += [label] if label not in told else []
    everyone = len(arms)
    return [json.loads(text) | {"arms": [] if len(told) == everyone else told} for text, told in whose.items()]


def _against_controls(arms: Mapping[str, Arm], reference: Generations | None, labels: Mapping[str, str]) -> list[str]:
    """The margin's effect beyond resampling: PoP arms against the control on the same edges, trained alike."""
    sentences: list[str] = []
    for control in (arm for arm in arms.values() if _loss(arm).origin == "control"):
        for arm in arms.values():
            ours, theirs = arm.configs[0], control.configs[0]
            same = (ours.pop, ours.train) == (theirs.pop, theirs.train) and len(arm.runs) == len(control.runs)
            if same and _loss(arm).needs.weaker == "target":
                differences = _differences(arm, control, reference)
                names = (labels.get(arm.name, arm.name), labels.get(control.name, control.name))
                sentences.append(read_control(*names, differences, told=len(arm.runs) > 1))
    return sentences


def _over_goals(arms: Mapping[str, Arm], labels: Mapping[str, str]) -> list[str]:
    """How well each arm that was asked for several goals follows them."""
    return [f"{labels.get(arm.name, arm.name)}: {arm.goals.note()}." for arm in arms.values() if arm.goals is not None]


def _against_references(arms: Mapping[str, Arm], results: Sequence[ArmResult]) -> list[str]:
    """Training's effect beyond the reference model's own order, for scores that are not log-ratios."""
    sentences: list[str] = []
    for arm, result in zip(arms.values(), results, strict=True):
        held_out = arm.margins[0]
        if held_out.of_reference is not None:
            added = discriminative_differences(
                arm.margins_by_seed,
                np.broadcast_to(held_out.of_reference, arm.margins_by_seed.shape),
                strength=held_out.strength,
                clusters=held_out.clusters,
            )
            sentences.append(read_reference(result, added["accuracy"]))
    return sentences


def _loss(arm: Arm) -> Loss:
    return make_loss(arm.configs[0])


def _reward_name(arm: Arm) -> str:
    """The function of a reward in Python; empty for a model's."""
    reward = arm.configs[0].evaluation.reward
    named = None if reward is None else read_name(reward)
    return named.place.rpartition(":")[2] if named is not None and named.kind == "code" else ""


def _differences(arm: Arm, other: Arm, reference: Generations | None) -> dict[str, Interval]:
    """Differences of two arms: paired by seed if they have equally many, otherwise with independent seeds."""
    held_out = arm.margins[0]
    differences = discriminative_differences(
        arm.margins_by_seed,
        other.margins_by_seed,
        strength=held_out.strength,
        clusters=held_out.clusters,
        edges=_load_edges(arm),
    )
    if arm.generations is not None and other.generations is not None:
        differences |= generative_differences(arm.generations, other.generations, reference)
    return differences


def _load_generations(path: Path) -> Generations | None:
    return Generations.load(path) if path.is_file() else None


def _load_edges(arm: Arm) -> tuple[np.ndarray, np.ndarray] | None:
    file = arm.runs[0].evaluation / "edges.parquet"
    return PopEdges.load(file).resolve(arm.margins[0].ids) if file.is_file() else None


def _arm_result(arm: Arm, base: Arm, reference: Generations | None, label: str) -> ArmResult:
    held_out = arm.margins[0]
    shared: dict[str, Any] = {"strength": held_out.strength, "clusters": held_out.clusters, "edges": _load_edges(arm)}
    measured = discriminative_metrics(
        reward_margin=arm.margins_by_seed,
        longer_chosen=held_out.of_lengths,
        reference_margin=held_out.of_reference,
        **shared,
    )
    metrics, differences = dict(measured.intervals), dict[str, Interval]()
    if arm.name != base.name:
        differences = _differences(arm, base, reference)
    if arm.generations is not None:
        paired = arm.name != base.name and len(arm.runs) == len(base.runs)
        metrics |= generative_metrics(arm.generations, reference, base.generations if paired else None)
    if arm.goals is not None:
        metrics["goal_spearman"] = arm.goals.spearman
    loss = _loss(arm)
    return ArmResult(
        name=arm.name,
        objective=loss.objective.name,
        label=label,
        origin=loss.origin,
        seeds=[config.seed for config in arm.configs],
        metrics=metrics,
        differences=differences,
        reliability=measured.reliability,
        curves=_curves(arm, reference),
        goals=[] if arm.goals is None else arm.goals.rows(),
        training=_training(arm),
        overhead=_overhead(arm, base),
        samples=[] if arm.generations is None else _samples(arm.generations[0]),
    )


def _curves(arm: Arm, reference: Generations | None) -> dict[str, list[list[float]]]:
    """Held-out metrics at steps at which all seeds were measured, with intervals; other steps are not drawn."""
    settings = arm.configs[0].evaluation
    steps = set.intersection(*({path.name for path in run.evaluation.glob("curves/step-*")} for run in arm.runs))
    if not steps:
        return {}
    points = [(int(name[5:]), [run.evaluation / "curves" / name for run in arm.runs]) for name in sorted(steps)]
    points.append((int(arm.runs[0].facts()["steps"]), [run.evaluation for run in arm.runs]))
    curves: dict[str, list[list[float]]] = {}
    for step, folders in points:
        margins = [HeldOutMargins.load(folder / "margins.parquet") for folder in folders]
        right = share_right(np.stack([held_out.reward_margin for held_out in margins]))
        accuracy = row_means(right, margins[0].clusters).interval(scale="share")
        curves.setdefault("accuracy", []).append(_point(step, accuracy))
        files = [folder / "generations.parquet" for folder in folders]
        if all(file.is_file() for file in files):
            generations = [Generations.load(file).first(settings.curve_prompts) for file in files]
            start = reference.first(len(generations[0].responses)) if reference is not None else None
            intervals = generative_metrics(generations, start)
            for metric in filter(None, (generations[0].drawn.log_ratio, "win_rate_reference")):
                curves.setdefault(metric, []).append(_point(step, intervals[metric]))
    return curves


def _point(step: int, interval: Interval) -> list[float]:
    return [step, interval.estimate, interval.low, interval.high]


def _training(arm: Arm) -> dict[str, list[list[float]]]:
    """Logged training metrics, averaged over seeds."""
    lines = [line for run in arm.runs for line in run.metrics()]
    result: dict[str, list[list[float]]] = {}
    for name in _TRAINING:
        by_step: dict[int, list[float]] = {}
        for line in lines:
            if name in line:
                by_step.setdefault(line["step"], []).append(line[name])
        if by_step:
            result[name] = [[step, float(np.mean(values))] for step, values in sorted(by_step.items())]
    return result


def _overhead(arm: Arm, base: Arm) -> dict[str, float]:
    def mean(which: Arm, name: str) -> float:
        return float(np.mean([run.facts()[name] for run in which.runs]))

    result = {name: mean(arm, name) for name in ("train_seconds", "tokens_per_second", "peak_memory_mb")}
    return result | {"time_ratio": result["train_seconds"] / mean(base, "train_seconds")}


def _samples(generations: Generations) -> list[dict[str, Any]]:
    """A few samples of one seed; of images a row of each prompt, then second rows."""
    if generations.of_images:
        return _pictures(generations)
    first = generations.responses[:_SAMPLES]
    shown: list[dict[str, Any]] = []
    for prompt, row in zip(first.prompts, first, strict=True):
        response = row["responses"][0]
        reward = response.get("reward", math.nan)
        shown.append({"prompt": prompt_text(prompt), "completion": response["text"], "reward": reward})
    return shown


def _pictures(generations: Generations) -> list[dict[str, Any]]:
    responses, further = generations.responses, generations.further
    places = [(number, row) for row, count in enumerate(responses.counts.tolist()) for number in range(count)]
    shown: list[dict[str, Any]] = []
    for number, row in sorted(sorted(places)[:MAX_ROWS], key=lambda place: place[::-1]):
        response = responses[row]["responses"][number]
        sample = {"prompt": responses.prompts[row], "image": thumbnail(response["image"])}
        sample["reward"] = response.get("reward", math.nan)
        shown.append(sample | ({"also": {name: response[name] for name in further}} if further else {}))
    return shown


def _data_facts(facts: Mapping[str, Any], config: RunConfig, arms: Mapping[str, Arm]) -> dict[str, str]:
    strength = np.concatenate([arm.margins[0].strength for arm in list(arms.values())[:1]])
    known = strength[np.isfinite(strength)]
    rows = {
        "Source": _DATA.get(config.data.train, config.data.train),
        "Start model": _MODELS.get(config.model.path, config.model.path),
        "Training preferences": str(facts["train_preferences"]),
        "Held-out preferences": str(facts["test_preferences"]),
        "Flipped training labels": f"{config.data.flip:.0%}",
        "Training data fingerprint": str(facts["train_fingerprint"])[:16],
        "Held-out data fingerprint": str(facts["test_fingerprint"])[:16],
    }
    if len(known):
        quartiles = ", ".join(f"{q:.2f}" for q in np.quantile(known, [0.25, 0.5, 0.75]))
        rows["Held-out strength, quartiles"] = quartiles
    for name, arm in arms.items():
        edges = arm.runs[0].facts()
        if edges["edges_fingerprint"]:
            asked = edges["edge_comparisons"]
            rows[f"Training rows of {name}"] = counted(edges["rows"], "edge") + (
                f" from {counted(asked, 'comparison')}" if asked else ""
            )
    return rows

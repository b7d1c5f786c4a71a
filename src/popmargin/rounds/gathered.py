"""What finished stages say, gathered for the report: measured policies, labels, trainings, costs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popmargin.data.tokenize import prompt_text
from popmargin.evaluation.discriminative import discriminative_differences
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.generative import generative_differences, generative_metrics, no_log_ratio
from popmargin.evaluation.run import HeldOutMargins
from popmargin.pop.edges import PopEdges
from popmargin.rounds.manifest import Manifest
from popmargin.rounds.plan import Plan
from popmargin.rounds.runner import states_of, waiting_lines
from popmargin.safe_reading import read_json
from popmargin.statistics.intervals import Interval


@dataclass(frozen=True)
class Measured:
    """A policy that was measured.

    Attributes:
        name: of its round: `start`, `seed`, `round-1` …
        metrics: name -> interval, as in reports of studies.
        differences: from the first trained policy, where that is not itself.
        samples: prompt, completion and reward of a few held-out prompts, the same for all policies.
    """

    name: str
    metrics: dict[str, Interval]
    differences: dict[str, Interval]
    samples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True)
class RoundsResults:
    """Everything that the report shows.

    Attributes:
        title: heading.
        policies: measured, in order; the first may be the start model.
        labels: name of a round -> what its label and pair stages said.
        trainings: name of a round -> what its training said.
        stages: manifests of all finished stages, in the order of the plan.
        config: YAML.
        ranks: name of a round -> what its ranking of the original preferences, and their replacement, said.
        waiting: a sentence for each stage that waits for people.
    """

    title: str
    policies: list[Measured]
    labels: dict[str, dict[str, Any]]
    trainings: dict[str, dict[str, Any]]
    stages: list[Manifest]
    config: str
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    waiting: list[str] = field(default_factory=list[str])


_SAMPLES = 4


def gather(title: str, config: str, plan: Plan, folder: Path) -> RoundsResults:
    """Read what the finished stages of a plan left in its folder."""
    states = states_of(plan, folder)
    finished = {
        name: state.manifest
        for name, state in states.items()
        if state.standing == "finished" and state.manifest is not None
    }
    labels: dict[str, dict[str, Any]] = {}
    trainings: dict[str, dict[str, Any]] = {}
    ranks: dict[str, dict[str, Any]] = {}
    for name, manifest in finished.items():
        round_name, _, kind = name.rpartition("/")
        if kind in ("sample", "label", "pair"):
            labels.setdefault(round_name, {})[kind] = dict(manifest.facts)
        elif kind == "answers" and "pairs" in manifest.facts:  # of people who said which response is better
            round_name = round_name.removesuffix("/people")
            labels.setdefault(round_name, {}).update(pair=dict(manifest.facts), label=dict(manifest.facts))
        elif kind in ("rank", "replace"):
            ranks.setdefault(round_name, {})[kind] = dict(manifest.facts)
        elif kind == "train":
            trainings[round_name] = dict(manifest.facts)
    measured = [name for name in finished if name.endswith("/measure")]
    return RoundsResults(
        title=title,
        policies=_measured(measured, folder),
        labels=labels,
        trainings=trainings,
        ranks=ranks,
        stages=list(finished.values()),
        config=config,
        waiting=list(waiting_lines(states)),
    )


def _measured(names: list[str], folder: Path) -> list[Measured]:
    start = "start/measure"
    reference = _generations(folder / start) if start in names else None
    trained = [name for name in names if name != start]
    policies: list[Measured] = []
    if reference is not None:
        metrics = dict(generative_metrics(reference)) | no_log_ratio(reference)
        policies.append(Measured("start", metrics, {}, _samples(reference)))
    for name in trained:
        own = folder / name
        metrics = read_json(own / "evaluation/metrics.json")["intervals"]
        generations = _generations(own)
        policies.append(
            Measured(
                name=name.removesuffix("/measure"),
                metrics={key: Interval.from_dict(value) for key, value in metrics.items()},
                differences={} if name == trained[0] else _differences(own, folder / trained[0], reference),
                samples=[] if generations is None else _samples(generations),
            )
        )
    return policies


def _generations(stage: Path) -> Generations | None:
    file = stage / "evaluation/generations.parquet"
    return Generations.load(file) if file.is_file() else None


def _differences(stage: Path, first: Path, reference: Generations | None) -> dict[str, Interval]:
    """This policy minus the first trained one, on the same preferences and prompts."""
    margins, base = (HeldOutMargins.load(path / "evaluation/margins.parquet") for path in (stage, first))
    edges = stage / "evaluation/edges.parquet"
    found = discriminative_differences(
        margins.reward_margin,
        base.reward_margin,
        strength=margins.strength,
        clusters=margins.clusters,
        edges=PopEdges.load(edges).resolve(margins.ids) if edges.is_file() else None,
    )
    generations, of_base = _generations(stage), _generations(first)
    if generations is not None and of_base is not None:
        found |= generative_differences(generations, of_base, reference)
    return found


def _samples(generations: Generations) -> list[dict[str, Any]]:
    """The first response to each of a few prompts."""
    samples: list[dict[str, Any]] = []
    for row in generations.first(_SAMPLES).responses:
        first = row["responses"][0]
        samples.append(
            {"prompt": prompt_text(row["prompt"]), "completion": first["text"], "reward": first.get("reward")}
        )
    return samples

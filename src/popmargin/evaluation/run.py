"""Measuring a policy on held-out preferences and prompts, and keeping what was measured in its run directory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from popmargin.account import Step
from popmargin.config import EvaluationConfig, RunConfig
from popmargin.data.tokenize import prompt_text, tokenize_prompts
from popmargin.engine.batch import preference_sequences
from popmargin.engine.logps import token_logps
from popmargin.engine.rewards import RewardPlan, pair_rewards, response_rewards, scoring_plan
from popmargin.engine.scores import pair_scores
from popmargin.engine.sequences import sequences_to, split_to_budget
from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.discriminative import DiscriminativeMetrics, discriminative_metrics
from popmargin.evaluation.generative import Generations, generative_metrics
from popmargin.evaluation.held_out import check_models, held_out
from popmargin.files import PARQUET, whole_file
from popmargin.generate.sample import Sampling, completion_logps, sample
from popmargin.generate.settings import own_settings
from popmargin.pop.edges import PopEdges
from popmargin.rewards.base import Reward
from popmargin.rewards.load import load_reward
from popmargin.training.account import edge_step, tokenizing_step
from popmargin.training.checks import check_rows
from popmargin.training.fingerprints import source_fingerprints, tokenizer_fingerprint, tokens_fingerprint
from popmargin.training.inputs import with_absolute_paths
from popmargin.training.prepare import Workspace
from popmargin.training.run import make_loss
from popmargin.training.run_directory import RunDirectory


@dataclass(frozen=True)
class HeldOutMargins:
    """Reward margins of held-out preferences, and what they are compared with.

    Attributes:
        ids: preference ids (N,).
        clusters: (N,): the prompt, or what the data name as `cluster`.
        reward_margin: β·gap in the objective's own score (N,), reward units.
        strength: (N,), nan where unknown.
        longer_chosen: 1 where chosen has more tokens, ½ where as many, else 0 (N,).
        reference_margin: what the reference model's own log-probs give in the same score (N,), reward units; nan where
            the score is a ratio to them, in which they have no margin.
    """

    ids: list[str]
    clusters: list[str]
    reward_margin: np.ndarray
    strength: np.ndarray
    longer_chosen: np.ndarray
    reference_margin: np.ndarray

    @property
    def of_reference(self) -> np.ndarray | None:
        """`reference_margin`; None where the score is a ratio to the reference."""
        return self.reference_margin if np.isfinite(self.reference_margin).all() else None

    def save(self, path: Path) -> None:
        """Write a Parquet file."""
        table = pa.table({name: pa.array(values) for name, values in vars(self).items()})
        with whole_file(path, PARQUET) as partial:
            pq.write_table(table, partial)

    @staticmethod
    def load(path: Path) -> "HeldOutMargins":
        """Read what `save` wrote.

        Raises:
            RunError: there is no such file.
        """
        if not path.is_file():
            raise RunError(f"{path} does not exist: evaluate the run with popmargin eval.")
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        names = [field.name for field in fields(HeldOutMargins)]
        if list(columns) != names:
            raise RunError(f"{path} is from another version of popmargin: evaluate the run with popmargin eval.")
        ids, clusters, *arrays = (columns[name] for name in names)
        return HeldOutMargins(ids, clusters, *(np.array(values, dtype=float) for values in arrays))


@torch.no_grad()
def held_out_margins(policy: Any, config: RunConfig, workspace: Workspace) -> HeldOutMargins:
    """Score all held-out preferences under a policy or a reward model."""
    loss = make_loss(config)
    kind = loss.objective.score_kind(loss.options)
    data = workspace.test
    ratios = kind in ("log_ratio", "mean_log_ratio")
    reference = None if loss.rewards else workspace.test_reference
    device = next(policy.parameters()).device
    tokens = data.tokenized
    check_rows(tokens, policy, config.model.path)
    plan = scoring_plan(policy, rewards=loss.rewards)
    prompts = tokens.prompt.lengths if plan.layout == "packed" else 2 * tokens.prompt.lengths
    lengths = (prompts + tokens.chosen.lengths + tokens.rejected.lengths).tolist()
    gaps, reference_gaps = np.zeros(len(data)), np.full(len(data), np.nan)
    was_training = policy.training
    policy.eval()
    for rows in split_to_budget(lengths, config.evaluation.tokens_per_batch):
        sequences = preference_sequences(
            tokens, rows, workspace.tokenizer.pad_token_id, plan.layout, whole=loss.rewards
        )
        sequences = sequences_to(sequences, device)
        if isinstance(plan, RewardPlan):
            rewards = response_rewards(policy, sequences, precision=config.model.precision, plan=plan).double()
            gaps[rows] = pair_rewards(rewards).gap.cpu().numpy()
            continue
        values = token_logps(policy, sequences, precision=config.model.precision, plan=plan).double()
        assert reference is not None, "policies have a reference"
        of_reference = reference.tokens(rows).to(device).double()
        gaps[rows] = pair_scores(kind, values, of_reference, sequences["lengths"]).gap.cpu().numpy()
        if not ratios:
            own = pair_scores(kind, of_reference, None, sequences["lengths"])
            reference_gaps[rows] = own.gap.cpu().numpy()
    policy.train(was_training)
    longer = np.sign(tokens.chosen.lengths - tokens.rejected.lengths) / 2 + 0.5
    margins, of_references = loss.beta * gaps, loss.beta * reference_gaps
    return HeldOutMargins(data.ids, data.clusters, margins, data.strength, longer, of_references)


def margin_metrics(margins: HeldOutMargins, edges: PopEdges | None) -> DiscriminativeMetrics:
    """Discriminative metrics of one run, with intervals."""
    return discriminative_metrics(
        reward_margin=margins.reward_margin,
        strength=margins.strength,
        clusters=margins.clusters,
        longer_chosen=margins.longer_chosen,
        reference_margin=margins.of_reference,
        edges=edges.resolve(margins.ids) if edges is not None else None,
    )


@dataclass
class PromptSet:
    """Held-out prompts to generate for, distinct and in the order of the data."""

    prompts: list[Any]
    keys: list[str]
    clusters: list[str]

    @staticmethod
    def of(workspace: Workspace, count: int | None) -> "PromptSet":
        """The first `count` distinct held-out prompts; all when None."""
        preferences = workspace.test.preferences
        prompts = [prompt for rows in preferences.batches("prompt") for prompt in rows["prompt"]]
        first = {key: row for row, key in reversed(list(enumerate(preferences.prompt_keys)))}
        rows = sorted(first.values())[:count]
        keys, clusters = preferences.prompt_keys, preferences.clusters
        return PromptSet(*([column[row] for row in rows] for column in (prompts, keys, clusters)))


def generate_and_score(
    policy: Any,
    config: RunConfig,
    workspace: Workspace,
    reward: Reward,
    *,
    prompts: int | None,
    progress: bool = False,
) -> Generations:
    """Completions of held-out prompts with rewards, and their log-ratio to the reference.

    Args:
        policy: samples the completions.
        config: how to sample.
        workspace: prompts, tokenizer and reference model.
        reward: scores them.
        prompts: number of prompts; None takes all.
        progress: show a progress bar.
    """
    settings = config.evaluation
    chosen = PromptSet.of(workspace, prompts)
    room = _room_for_prompts(config)
    tokens = tokenize_prompts(chosen.prompts, workspace.tokenizer, max_length=room)
    sampling = Sampling(
        samples=settings.samples,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        generation_config=settings.generation_config,
        batch_size=settings.generation_batch_size,
        seed=settings.seed,
        precision=config.model.precision,
    )
    completions = sample(policy, workspace.tokenizer, tokens, sampling, ends=workspace.ends, progress=progress)
    repeated = [prompt for prompt in chosen.prompts for _ in range(settings.samples)]
    texts = [completion.text for completion in completions]
    places = [place for place in range(len(tokens)) for _ in range(settings.samples)]
    ids = [completion.tokens for completion in completions]
    options: dict[str, Any] = {
        "tokens_per_batch": settings.tokens_per_batch,
        "precision": config.model.precision,
        "pad_id": workspace.tokenizer.pad_token_id,
    }
    rows = [tokens[place] for place in places]
    kl = np.zeros(len(ids))
    if policy is not workspace.reference_model:
        kl = completion_logps(policy, rows, ids, **options)
        kl -= completion_logps(workspace.reference_model, rows, ids, **options)
    return Generations(
        prompts=[prompt_text(prompt) for prompt in chosen.prompts],
        prompt_keys=chosen.keys,
        samples_per_prompt=settings.samples,
        completions=texts,
        rewards=np.array(reward.score(repeated, texts), dtype=np.float64),
        lengths=np.array([len(row) for row in ids], dtype=np.int64),
        finished=np.array([completion.finished for completion in completions]),
        kl=kl,
        drawn=sampling.drawn,
        clusters=chosen.clusters,
    )


def _room_for_prompts(config: RunConfig) -> int:
    room = config.data.max_length - config.evaluation.max_new_tokens
    if room < 1:
        raise RunError(
            f"evaluation.max_new_tokens {config.evaluation.max_new_tokens} leaves no room for prompts in "
            f"data.max_length {config.data.max_length}: lower the first or raise the second."
        )
    return room


def generation_step(generations: Generations, config: RunConfig, workspace: Workspace, whose: str) -> Step:
    """The account of generations: prompts asked, answered and cut, answers cut and empty."""
    everyone, settings = PromptSet.of(workspace, None), config.evaluation
    asked, room = len(generations.prompts), _room_for_prompts(config)
    lengths = tokenize_prompts(everyone.prompts[:asked], workspace.tokenizer).lengths
    answers = len(generations.completions)
    counts = {
        f"prompts that lost tokens, of which {room} fit beside the answer": (int((lengths > room).sum()), asked),
        f"answers cut at evaluation.max_new_tokens {settings.max_new_tokens}": (
            int((~generations.finished).sum()),
            answers,
        ),
        "empty answers": (sum(not text.strip() for text in generations.completions), answers),
    }
    more = len(everyone.prompts) - asked
    return Step(
        name=f"generations of {whose}",
        rows_in=len(everyone.prompts),
        kept={"answered": asked},
        left_out={"not asked, beyond evaluation.prompts": more} if more else {},
        notes=tuple(f"{what}: {count} of {of}" for what, (count, of) in counts.items() if count),
        unit="prompts",
    )


def _test_edge_step(edges: PopEdges | None, workspace: Workspace) -> list[Step]:
    if edges is not None:
        return [replace(edge_step(edges, None, trained=False), name="held-out PoP edges")]
    unknown = int((~np.isfinite(workspace.test.strength)).sum())
    if not unknown:
        return []
    note = "no PoP edges are drawn between them, since not all strengths are known; metrics by strength leave these out"
    count = len(workspace.test)
    return [Step(name="held-out strengths", rows_in=count, kept={"known": count - unknown},
                 left_out={"unknown": unknown}, notes=(note,))]  # fmt: skip


def configured_reward(config: EvaluationConfig) -> Reward | None:
    """The reward that the configuration names; None if it names none."""
    return load_reward(config.reward, **config.reward_options) if config.reward is not None else None


def evaluate_policy(
    policy: Any,
    config: RunConfig,
    workspace: Workspace,
    directory: RunDirectory,
    *,
    reward: Reward | None,
    reference: Generations | None,
    baseline: Generations | None = None,
    progress: bool = False,
    earlier: Sequence[Step] = (),
) -> dict[str, Any]:
    """Measure a policy and write margins, generations and metrics into its run directory.

    Args:
        policy: what to measure.
        config: the run's configuration.
        workspace: held-out data and reference.
        directory: where the results go.
        reward: scores generations; None generates nothing.
        reference: the reference model's generations on the same prompts.
        baseline: another run's generations to win against.
        progress: show progress bars.
        earlier: the account of how the held-out preferences came about, where run.json does not hold it.

    Returns:
        What evaluation/metrics.json holds: intervals, reliability curve, counts, and the account of what was measured.
    """
    settings = config.evaluation
    margins = held_out_margins(policy, config, workspace)
    margins.save(directory.evaluation / "margins.parquet")
    edges = workspace.test_edges(settings.pop_k, settings.seed)
    if edges is not None:
        edges.save(directory.evaluation / "edges.parquet")
    metrics = margin_metrics(margins, edges).to_dict()
    steps = _test_edge_step(edges, workspace)
    if reference is not None:
        steps.append(generation_step(reference, config, workspace, "the reference"))
    if reward is not None:
        generations = generate_and_score(policy, config, workspace, reward, prompts=settings.prompts, progress=progress)
        generations.save(directory.evaluation / "generations.parquet")
        steps.append(generation_step(generations, config, workspace, "the policy"))
        intervals = generative_metrics(generations, reference, baseline)
        metrics["intervals"] |= {name: interval.to_dict() for name, interval in intervals.items()}
        facts = {"drawn": str(generations.drawn), "own_settings": own_settings(policy), "ends": workspace.ends}
        metrics["sampling"] = asdict(generations.drawn) | facts
    workspace.tell(steps)
    metrics["account"] = [step.to_dict() for step in (*earlier, *steps)]
    metrics["intervals"] = dict(sorted(metrics["intervals"].items()))
    text = json.dumps(dict(sorted(metrics.items())), indent=1, allow_nan=False)
    with whole_file(directory.evaluation / "metrics.json") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return metrics


def evaluate_run(
    path: str | Path,
    *,
    against: str | Path | None = None,
    config: RunConfig | None = None,
    reward: Reward | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run on exactly the preferences that were held out when it was trained.

    Args:
        path: its run directory.
        against: another evaluated run to compute a win rate against.
        config: the run's configuration with other evaluation settings, or with other held-out data (`data.test`), whose
            results go to a folder of their own; None takes the run's own.
        reward: scores generations; None takes the configuration's.

    Returns:
        As `evaluate_policy`.

    Raises:
        ConfigError: the run is a reward model, and generations are asked for, or a setting would make it another run.
        DataError: other held-out data share prompts with the training.
        RunError: the run has not finished, its held-out preferences, models or code are not what they were, or the
            other run has no generations.
    """
    directory = RunDirectory(Path(path))
    config = config or directory.config()
    directory.facts()
    if config.task == "reward" and (reward is not None or against is not None):
        raise ConfigError(f"{path} is a reward model: it generates nothing that could be scored or win against a run.")
    chosen = held_out(directory, config)
    directory, config = chosen.directory, with_absolute_paths(config)
    workspace = Workspace(config, test=chosen.preferences)
    steps = [*chosen.steps, tokenizing_step(workspace.test.tokenized.report, "held-out preferences")]
    workspace.tell(steps)
    _check_models(directory, config, workspace)
    reward = reward if reward is not None else configured_reward(config.evaluation)
    reference = baseline = None
    if reward is not None:
        reference = generate_and_score(
            workspace.reference_model, config, workspace, reward, prompts=config.evaluation.prompts, progress=True
        )
        reference.save(directory.evaluation / "reference_generations.parquet")
    if against is not None:
        other = replace(directory, path=Path(against)).evaluation / "generations.parquet"
        if not other.is_file():
            raise RunError(f"{against} has no generations: evaluate it with a reward first (popmargin eval {against}).")
        baseline = Generations.load(other)
    policy = workspace.trained(directory.model)
    return evaluate_policy(
        policy,
        config,
        workspace,
        directory,
        reward=reward,
        reference=reference,
        baseline=baseline,
        progress=True,
        earlier=steps,
    )


def _check_models(directory: RunDirectory, config: RunConfig, workspace: Workspace) -> None:
    facts = {"start model": workspace.start_fingerprint, "tokenizer": tokenizer_fingerprint(workspace.tokenizer)}
    if config.reference.model is not None:
        facts["reference model"] = workspace.reference_fingerprint
    facts |= source_fingerprints(make_loss(config).components)
    check_models(directory, facts)
    if directory.measured == RunDirectory(directory.path).measured:  # of other data there are no tokens to compare
        check_models(directory, {"tokens of held-out preferences": tokens_fingerprint(workspace.test.tokenized)})
